//! Orders of keys.

use super::*;

pub(super) const MUTATIONS: &[Mutation] = &[
    tests(
        "in reverse a zero byte is stored as if the key ended",
        KEY_ORDER_FORM,
        "        if byte == 0 {\n            stored.push(0);\n        }\n    }\n}\n\npub(super) fn store_reverse(",
        "    }\n}\n\npub(super) fn store_reverse(",
        "key_order",
    ),
    tests(
        "negative integers come behind positive ones",
        KEY_ORDER_FORM,
        "            *highest ^= 0x80;",
        "            *highest ^= 0;",
        "key_order",
    ),
    tests(
        "a sort key that goes on with a zero byte ends there",
        KEY_ORDER_FORM,
        "            stored.push(0xff);\n        }\n    }\n    stored.extend_from_slice(&[0, 0]);",
        "            stored.push(0);\n        }\n    }\n    stored.extend_from_slice(&[0, 0]);",
        "key_order",
    ),
    file(
        "a cursor shows the key that it stood on before",
        ITER,
        "                if stands {\n                    let shown = own.show(self.inner.key());",
        "                if stands && own.key.is_empty() {\n                    let shown = own.show(self.inner.key());",
        "key_order",
    ),
    file(
        "a bound that a range is to leave out belongs to it",
        FAMILY_ORDER,
        "            Bound::Excluded(key) => Bound::Excluded(self.stored(key)?),",
        "            Bound::Excluded(key) => Bound::Included(self.stored(key)?),",
        "key_order",
    ),
    file(
        "other options forget the order",
        FAMILY_RECORD,
        "        let key_order = self.options.key_order.take();",
        "        let key_order = options.key_order.clone();",
        "key_order",
    ),
    file(
        "a family with an order is opened as if its keys were in that of their bytes",
        FAMILY_OPTIONS,
        "        if self.key_order == present.key_order {",
        "        if self.key_order.is_none() || self.key_order == present.key_order {",
        "key_order",
    ),
    file(
        "a family takes a program's order of another name",
        FAMILY_ORDER,
        " && given.is_present() && self.own == *given {",
        " && given.is_present() {",
        "key_order",
    ),
    file(
        "a transaction relies on the keys that users see",
        WALK,
        "        let item = self.iter.next_stored();\n        self.note(FRONT, item.as_ref());\n        self.iter.show(item)",
        "        let item = self.iter.next_stored();\n        let item = self.iter.show(item);\n        self.note(FRONT, item.as_ref());\n        item",
        "key_order",
    ),
    file(
        "a merge operator is given the stored key",
        FAMILY_OPERANDS,
        "        let key = &*self.user_key(key);\n",
        "",
        "key_order",
    ),
    file(
        "points that cut a range are stored keys",
        FAMILY_SNAPSHOT,
        "        if self.view.family.own_order().is_none() {\n            return Ok(points",
        "        if true {\n            return Ok(points",
        "key_order",
    ),
];
