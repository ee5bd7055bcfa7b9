//! Deletion in chunks: counted, not timed.

use module_sqlite::{Chunks, Reader};

use crate::{NOTES, add, count, number, open};

#[test]
fn rows_are_deleted_in_pieces_and_others_come_between() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut database = open(directory.path(), NOTES).expect("it opens");
    let fill = "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number \
                LIMIT 25500) INSERT INTO note (at) SELECT n FROM number";
    database.write(|transaction| transaction.execute(fill, [])).expect("it is written");
    let rest = |chunks: &Chunks| (chunks.rows, chunks.finished);
    let chunks = database.delete_older("note", "at", 25_001).expect("it is written");
    assert_eq!(rest(&chunks), (10_000, false), "ten pieces at once");
    // Somebody who came between finds it free.
    add(&mut database, 30_000).expect("it is written");
    let chunks = database.delete_older("note", "at", 25_001).expect("it is written");
    assert_eq!(rest(&chunks), (10_000, false));
    let chunks = database.delete_older("note", "at", 25_001).expect("it is written");
    assert_eq!(rest(&chunks), (5_000, true));
    assert_eq!(count(&mut database), 501, "what is younger stays");
    assert_eq!(number(&mut database, "SELECT min(at) FROM note"), 25_001);
}

#[test]
fn each_piece_is_a_transaction_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut database = open(directory.path(), NOTES).expect("it opens");
    for at in 0..25 {
        add(&mut database, at).expect("it is written");
    }
    let reader = Reader::open(database.path(), &NOTES).expect("it opens");
    let seen = || {
        let sql = "SELECT count(*) FROM note";
        reader.read(|it| it.query_row(sql, [], |row| row.get::<_, i64>(0))).expect("it answers")
    };
    let mut before = Vec::new();
    let chunks = database.in_chunks(|transaction, most| {
        assert_eq!(most, 1_000);
        // What others see of the pieces before this one.
        before.push(seen());
        let sql = "DELETE FROM note WHERE id IN (SELECT id FROM note LIMIT 10)";
        let deleted = transaction.execute(sql, [])?;
        // As if they had been as many as they may be.
        Ok(if deleted == 10 { 1_000 } else { deleted })
    });
    assert_eq!(chunks.expect("it is written"), Chunks { rows: 2_005, finished: true });
    assert_eq!(before, [25, 15, 5]);
    assert_eq!(seen(), 0);
}
