//! A month is told as it should be: everything that matters in time, and nothing else.

use std::thread;

use crate::month::{
    MONTHS, month,
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
    let months = 1..=u64::from(MONTHS);
    let months: Vec<_> = months.map(|seed| thread::spawn(move || (seed, play(seed)))).collect();
    for month in months {
        let (seed, (ours, naive)) = month.join().expect("it does not panic");
        assert_eq!(ours.untold, Vec::<&str>::new(), "{seed}");
        assert_eq!(ours.false_alarms, [], "{seed}");
        assert!(ours.slowest_critical_s <= 30, "{seed}: {ours:#?}");
        assert!(ours.slowest_other_s <= 30, "{seed}: {ours:#?}");
        assert_eq!(ours.most_of_a_cause, 2, "{seed}: its beginning and its end");
        // It begins, flaps from its third beginning on, and is quiet at last.
        assert_eq!(ours.of_flapping, 3, "{seed}: {ours:#?}");
        assert!(ours.most_an_hour <= 6, "{seed}: {ours:#?}");
        assert!(naive.notes > 100 * ours.notes, "{seed}: {} and {}", naive.notes, ours.notes);
    }
}
