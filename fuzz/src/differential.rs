//! Operations against a model of sorted maps.

use crate::common::shrunken;
use crate::common::world::{Place, World};
use crate::input::Input;
use crate::operations::operations;

/// Applies the operations that the bytes stand for to a database and to its model. The first byte says whether the database maintains itself.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let automatic = input.u8() % 4 == 3;
    let mut world = World::new(Place::memory(), shrunken().automatic_maintenance(automatic));
    for operation in &operations(&mut input) {
        world.apply(operation);
    }
    world.check();
}
