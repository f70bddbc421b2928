//! Writes the seed corpora into `seeds`. Run with `cargo run --example seeds` in the directory `fuzz`.

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    for (target, _, seeds) in peristyle_fuzz::seeds::all() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        fs::create_dir_all(&directory)?;
        for (name, bytes) in &seeds {
            fs::write(directory.join(name), bytes)?;
        }
        println!("{target}: {} seeds", seeds.len());
    }
    Ok(())
}
