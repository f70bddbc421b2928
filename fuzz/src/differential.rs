//! Operations against a model of sorted maps.

use crate::common::shrunken;
use crate::common::world::{Place, World};
use crate::input::Input;
use crate::operations::operations;

/// Applies the operations that the bytes stand for to a database and to its model. The first byte says
/// whether the database maintains itself, and whether merges write deltas wherever they can.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let way = input.u8();
    let builder =
        shrunken().automatic_maintenance(way % 4 == 3).merge_cost(if way & 16 == 0 { 8 } else { 0 });
    let mut world = World::new(Place::memory(), builder);
    for operation in &operations(&mut input) {
        world.apply(operation);
    }
    world.check();
}
