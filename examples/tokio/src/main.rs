//! A hundred tasks on two threads write to one database and await that each write is durable.
//!
//! ```sh
//! cargo run -p peristyle-tokio-example -- <directory>
//! ```

use peristyle::{ColumnFamilyDatabase, FamilyOptions};
use peristyle_tokio_example::{Failure, Store, blocking};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let path = std::env::args_os().nth(1).unwrap_or_else(|| "tokio-example".into());
    // Opening may replay a log.
    let entries = blocking(move || {
        ColumnFamilyDatabase::open(path)?.column_family_or_create("entries", FamilyOptions::default())
    })
    .await?;
    let store = Store::new(&entries);
    let tasks: Vec<_> = (0..100u64)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..10u64 {
                    let key = [task.to_be_bytes(), round.to_be_bytes()].concat();
                    store.put_all(vec![(key, b"written by a task".to_vec())]).await?;
                    store.add("writes", 1).await?;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(Failure::Thread)??;
    }
    let log = store.add("writes", 0).await.map(|writes| (writes, entries.database().statistics().log))?;
    println!("{} writes so far; {} commits, {} syncs of the log", log.0, log.1.records, log.1.syncs);
    drop(entries);
    store.close().await
}
