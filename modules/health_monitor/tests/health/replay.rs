//! A month is told as it should be: everything that matters in time, and nothing else.

use crate::month::{
    month,
    naive::Naive,
    ours::Site,
    verdict::{Judge, Verdict},
};

fn play(seed: u64) -> (Verdict, Verdict) {
    let (mut site, mut naive) = (Site::new(), Naive::default());
    let (mut ours, mut theirs) = (Judge::new(), Judge::new());
    for reading in month(seed) {
        ours.take(&reading, site.take(&reading));
        theirs.take(&reading, naive.take(&reading));
    }
    (ours.verdict(), theirs.verdict())
}

#[test]
fn a_month_is_told_in_time_once_and_without_false_alarms() {
    let (ours, naive) = play(1);
    assert_eq!(ours.untold, Vec::<&str>::new());
    assert_eq!(ours.false_alarms, []);
    assert!(ours.slowest_critical_s <= 30, "{ours:#?}");
    assert!(ours.slowest_other_s <= 30, "{ours:#?}");
    assert_eq!(ours.most_of_a_cause, 2, "its beginning and its end");
    // It begins and ends, begins again, flaps from then on, and is quiet at last.
    assert!(ours.of_flapping <= 5, "{ours:#?}");
    assert!(ours.most_an_hour <= 6, "{ours:#?}");
    assert!(naive.notes > 100 * ours.notes, "{} and {}", naive.notes, ours.notes);
}
