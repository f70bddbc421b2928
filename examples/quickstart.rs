//! An account book: two column families, a payment that is in both or in neither, and a look back.

use peristyle::{ColumnFamilyDatabase, FamilyOptions, WriteBatch};

fn main() -> peristyle::Result<()> {
    // A database is a directory: the one that is named, or else one among the temporary files.
    let named = std::env::args_os().nth(1).map(std::path::PathBuf::from);
    let path = named.unwrap_or_else(|| std::env::temp_dir().join("peristyle-quickstart"));

    let db = ColumnFamilyDatabase::open(&path)?;
    let accounts = db.column_family_or_create("accounts", FamilyOptions::default())?;
    let journal = db.column_family_or_create("journal", FamilyOptions::default())?;
    accounts.put("alice", "100")?;
    accounts.put("bob", "100")?;

    // A snapshot is one moment of all families: what is written later does not change it.
    let before = db.snapshot()?;

    // A batch becomes visible, and survives a crash, in all of its families or in none.
    let mut payment = WriteBatch::new();
    payment.put(&accounts, "alice", "90").put(&accounts, "bob", "110");
    payment.put(&journal, 1u64.to_be_bytes(), "alice pays bob 10");
    db.write(&payment)?;

    assert_eq!(before.get(&accounts, "alice")?.unwrap(), "100");
    assert_eq!(accounts.get("alice")?.unwrap(), "90");
    assert_eq!(journal.len()?, 1);

    // A range is walked in the order of its keys, or with `rev()` from its other end.
    for entry in accounts.range("alice".."carol")? {
        let (name, balance) = entry?;
        println!("{}: {}", String::from_utf8_lossy(&name), String::from_utf8_lossy(&balance));
    }

    // Closing makes everything durable and leaves nothing to replay for the next open.
    db.close()
}
