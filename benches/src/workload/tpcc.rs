//! New-order and payment, the two transactions that make up most of TPC-C, as a mixed load on one map of
//! keys.
//!
//! ```text
//! new-order   reads warehouse, customer and 5 to 15 items; writes district (its next order's number), the
//!             stock of each item, of another warehouse once in a hundred times, the order, its lines, and
//!             that it is new
//! payment     writes warehouse, district, customer (of another warehouse 15 times in a hundred), and history
//! ```
//!
//! 45 new orders come to 43 payments, as there. Rows have the sizes that they have there, and each is an
//! entry whose key is a letter and numbers; customers are found by number, and no order is given up halfway.
//! Each terminal is one of a warehouse. Rows are used in one order by all, so that locks make no deadlocks.

use anyhow::{Context, Result, ensure};

use crate::transactions::{Access, Store};

const DISTRICTS: u32 = 10;
/// Rows that a transaction loads.
const LOADED_TOGETHER: usize = 500;

/// How much there is at first.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Each with ten districts.
    pub warehouses: u32,
    /// Of each district.
    pub customers: u32,
    /// Of which each warehouse has some.
    pub items: u32,
}

/// What a row holds: numbers, which start at 0, and bytes up to its size.
#[derive(Clone, Copy)]
struct Table {
    letter: u8,
    bytes: usize,
}

const WAREHOUSE: Table = Table { letter: b'w', bytes: 89 };
const DISTRICT: Table = Table { letter: b'd', bytes: 95 };
const CUSTOMER: Table = Table { letter: b'c', bytes: 655 };
const ITEM: Table = Table { letter: b'i', bytes: 82 };
const STOCK: Table = Table { letter: b's', bytes: 306 };
const ORDER: Table = Table { letter: b'o', bytes: 24 };
const NEW_ORDER: Table = Table { letter: b'n', bytes: 8 };
const LINE: Table = Table { letter: b'l', bytes: 54 };
const HISTORY: Table = Table { letter: b'h', bytes: 46 };

// Numbers of rows.
const PAID: usize = 0; // of a warehouse, a district, a customer
const ORDERS: usize = 1; // of a district: how many there were
const PAYMENTS: usize = 1; // of a customer
const LEFT: usize = 0; // of a stock
const SOLD: usize = 1; // of a stock
const PRICE: usize = 0; // of an item
const OF_CUSTOMER: usize = 0; // of an order
const LINES: usize = 1; // of an order
const OF_ITEM: usize = 0; // of a line
const QUANTITY: usize = 1; // of a line
const AMOUNT: usize = 2; // of a line

fn key(table: Table, numbers: &[u32]) -> Vec<u8> {
    let mut key = vec![table.letter];
    numbers.iter().for_each(|number| key.extend_from_slice(&number.to_be_bytes()));
    key
}

/// A row's bytes.
struct Row(Vec<u8>);

impl Row {
    fn new(table: Table, numbers: &[u64]) -> Self {
        let mut row = Self(vec![7; table.bytes.max(8 * numbers.len())]);
        numbers.iter().enumerate().for_each(|(place, number)| row.set(place, *number));
        row
    }

    fn get(&self, place: usize) -> u64 {
        self.0[8 * place..8 * place + 8].try_into().map_or(0, u64::from_le_bytes)
    }

    fn set(&mut self, place: usize, number: u64) {
        self.0[8 * place..8 * place + 8].copy_from_slice(&number.to_le_bytes());
    }

    fn add(&mut self, place: usize, number: u64) {
        self.set(place, self.get(place) + number);
    }

    fn read(access: &mut dyn Access, key: &[u8], to_write: bool) -> Result<Self> {
        let mut row = Self(Vec::new());
        let is_there = access.get(key, to_write, &mut row.0)?;
        ensure!(is_there, "there is no row {}", key.escape_ascii());
        Ok(row)
    }

    /// Reads a row, and writes what `change` makes of it. Gives what `change` gives.
    fn change<R>(access: &mut dyn Access, key: &[u8], change: impl FnOnce(&mut Self) -> R) -> Result<R> {
        let mut row = Self::read(access, key, true)?;
        let result = change(&mut row);
        access.put(key, &row.0)?;
        Ok(result)
    }
}

impl Size {
    fn rows(self) -> impl Iterator<Item = (Vec<u8>, Row)> {
        let items = (0..self.items).map(|i| (key(ITEM, &[i]), Row::new(ITEM, &[u64::from(i % 100 + 1)])));
        let warehouses = (0..self.warehouses).flat_map(move |w| {
            let stock = (0..self.items).map(move |i| (key(STOCK, &[w, i]), Row::new(STOCK, &[50, 0])));
            let districts = (0..DISTRICTS).flat_map(move |d| {
                let customer = move |c| (key(CUSTOMER, &[w, d, c]), Row::new(CUSTOMER, &[0, 0]));
                let district = (key(DISTRICT, &[w, d]), Row::new(DISTRICT, &[0, 0]));
                std::iter::once(district).chain((0..self.customers).map(customer))
            });
            let warehouse = (key(WAREHOUSE, &[w]), Row::new(WAREHOUSE, &[0]));
            std::iter::once(warehouse).chain(districts).chain(stock)
        });
        items.chain(warehouses)
    }

    /// Puts all there that is there at first.
    pub fn load(self, store: &dyn Store) -> Result<()> {
        let rows: Vec<_> = self.rows().collect();
        for some in rows.chunks(LOADED_TOGETHER) {
            store.run(&mut |access| some.iter().try_for_each(|(key, row)| access.put(key, &row.0)))?;
        }
        Ok(())
    }

    /// Fails unless warehouses were paid what their districts were, and districts have the orders that they
    /// have counted and no more.
    pub fn check(self, store: &dyn Store) -> Result<()> {
        let mut check = |access: &mut dyn Access| {
            for w in 0..self.warehouses {
                let mut paid = 0;
                for d in 0..DISTRICTS {
                    let district = Row::read(access, &key(DISTRICT, &[w, d]), false)?;
                    paid += district.get(PAID);
                    let orders = u32::try_from(district.get(ORDERS))?;
                    let mut has_order =
                        |number| access.get(&key(ORDER, &[w, d, number]), false, &mut Vec::new());
                    ensure!(!has_order(orders)?, "warehouse {w}, district {d}: an order was not counted");
                    if let Some(last) = orders.checked_sub(1) {
                        ensure!(has_order(last)?, "warehouse {w}, district {d}: order {last} is lost");
                    }
                }
                let of_warehouse = Row::read(access, &key(WAREHOUSE, &[w]), false)?.get(PAID);
                ensure!(of_warehouse == paid, "warehouse {w} was paid {of_warehouse}, its districts {paid}");
            }
            Ok(())
        };
        store.run(&mut check).map(drop)
    }
}

/// One of those who order and pay.
pub struct Terminal {
    size: Size,
    number: u32,
    warehouse: u32,
    random: fastrand::Rng,
    payments: u32,
}

impl Terminal {
    /// That of this number; what it does follows from the seed.
    pub fn new(size: Size, number: u32, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        // So that what it writes down in another run is something else.
        let payments = (seed as u32) << 24;
        Self { size, number, warehouse: number % size.warehouses, random, payments }
    }

    /// Does one transaction more. Says how often it was refused.
    pub fn transact(&mut self, store: &dyn Store) -> Result<u64> {
        if self.random.u32(..88) < 45 { self.order(store) } else { self.pay(store) }
    }

    fn customer(&mut self, warehouse: u32) -> [u32; 3] {
        [warehouse, self.random.u32(..DISTRICTS), self.random.u32(..self.size.customers)]
    }

    fn order(&mut self, store: &dyn Store) -> Result<u64> {
        let customer @ [w, d, c] = self.customer(self.warehouse);
        let mut bought: Vec<[u32; 3]> = (0..self.random.u32(5..=15))
            .map(|_| {
                let supplier =
                    if self.random.u32(..100) == 0 { self.random.u32(..self.size.warehouses) } else { w };
                [supplier, self.random.u32(..self.size.items), self.random.u32(1..=10)]
            })
            .collect();
        bought.sort_unstable();
        store.run(&mut |access| {
            Row::read(access, &key(WAREHOUSE, &[w]), false)?;
            let number = Row::change(access, &key(DISTRICT, &[w, d]), |district| {
                district.add(ORDERS, 1);
                district.get(ORDERS) - 1
            })?;
            let number = u32::try_from(number).context("a district has very many orders")?;
            Row::read(access, &key(CUSTOMER, &customer), false)?;
            let order = Row::new(ORDER, &[u64::from(c), bought.len() as u64]);
            debug_assert_eq!((order.get(OF_CUSTOMER), order.get(LINES)), (u64::from(c), bought.len() as u64));
            access.put(&key(ORDER, &[w, d, number]), &order.0)?;
            access.put(&key(NEW_ORDER, &[w, d, number]), &Row::new(NEW_ORDER, &[]).0)?;
            for (line, &[supplier, item, quantity]) in (0..).zip(&bought) {
                let price = Row::read(access, &key(ITEM, &[item]), false)?.get(PRICE);
                let quantity = u64::from(quantity);
                Row::change(access, &key(STOCK, &[supplier, item]), |stock| {
                    let left = stock.get(LEFT);
                    stock.set(
                        LEFT,
                        if left >= quantity + 10 { left - quantity } else { left + 91 - quantity },
                    );
                    stock.add(SOLD, quantity);
                })?;
                let mut row = Row::new(LINE, &[0; 3]);
                row.set(OF_ITEM, u64::from(item));
                row.set(QUANTITY, quantity);
                row.set(AMOUNT, quantity * price);
                access.put(&key(LINE, &[w, d, number, line]), &row.0)?;
            }
            Ok(())
        })
    }

    fn pay(&mut self, store: &dyn Store) -> Result<u64> {
        let (warehouse, district) = (self.warehouse, self.random.u32(..DISTRICTS));
        let home =
            if self.random.u32(..100) < 85 { warehouse } else { self.random.u32(..self.size.warehouses) };
        let customer = self.customer(home);
        let amount = self.random.u64(1..=5000);
        self.payments += 1;
        let history = key(HISTORY, &[self.number, self.payments]);
        store.run(&mut |access| {
            Row::change(access, &key(WAREHOUSE, &[warehouse]), |row| row.add(PAID, amount))?;
            Row::change(access, &key(DISTRICT, &[warehouse, district]), |row| row.add(PAID, amount))?;
            Row::change(access, &key(CUSTOMER, &customer), |row| {
                row.add(PAID, amount);
                row.add(PAYMENTS, 1);
            })?;
            access.put(&history, &Row::new(HISTORY, &[amount]).0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transactions::kinds;

    #[test]
    fn in_every_kind_that_reads_what_is_paid_and_ordered_adds_up() {
        let size = Size { warehouses: 2, customers: 3, items: 20 };
        for kind in kinds().into_iter().filter(|kind| kind.reads) {
            let directory = tempfile::tempdir().unwrap();
            let store = (kind.open)(&directory.path().join("database")).unwrap();
            size.load(&*store).unwrap();
            store.quiet().unwrap();
            std::thread::scope(|scope| {
                for number in 0..3 {
                    let (store, mut terminal) = (&store, Terminal::new(size, number, u64::from(number)));
                    scope.spawn(move || {
                        for _ in 0..30 {
                            terminal.transact(&**store).unwrap();
                        }
                    });
                }
            });
            size.check(&*store).unwrap();
            let paid = key(WAREHOUSE, &[1]);
            store.run(&mut |access| Row::change(access, &paid, |row| row.add(PAID, 1))).unwrap();
            size.check(&*store).expect_err(kind.name);
        }
    }
}
