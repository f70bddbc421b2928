//! Makes a failing list shorter.

/// The shortest list found, by leaving out ever smaller parts of `list`, for which `fails` still holds; asks
/// at most `attempts` times.
pub fn shrink<T: Clone>(list: &[T], mut attempts: usize, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut list = list.to_vec();
    let mut part = list.len().div_ceil(2);
    while part > 0 {
        let mut start = 0;
        while start < list.len() {
            if attempts == 0 {
                return list;
            }
            attempts -= 1;
            let mut shorter = list.clone();
            shorter.drain(start..(start + part).min(list.len()));
            if fails(&shorter) {
                list = shorter;
            } else {
                start += part;
            }
        }
        part = if part == 1 { 0 } else { part.div_ceil(2) };
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_stays_and_the_rest_goes() {
        let list: Vec<u32> = (0..100).collect();
        let shrunk = shrink(&list, 1000, |list| list.contains(&17) && list.contains(&80));
        assert_eq!(shrunk, [17, 80]);
    }

    #[test]
    fn it_ends_when_it_may_ask_no_more() {
        let list: Vec<u32> = (0..100).collect();
        let mut asked = 0;
        shrink(&list, 5, |_| {
            asked += 1;
            false
        });
        assert_eq!(asked, 5);
    }
}
