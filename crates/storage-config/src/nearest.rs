//! What somebody may have meant by a name that is not known. The name itself is never repeated: in a URI whose password has a
//! raw `?` or `&` it is a part of the password.

/// The known name that differs least from a word, if it is so near that it may be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (word.chars().count() / 3).clamp(1, 2);
    let distance = |name| (distance(word, name), name);
    let (_, name) = known.into_iter().map(distance).filter(|(distance, _)| *distance <= most).min()?;
    Some(name)
}

/// How many characters are added, left out, replaced, or exchanged with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_near_and_strangers_are_not() {
        let known = ["table", "timeout", "max_connections"];
        for (word, meant) in [
            ("tabel", Some("table")),
            ("Table", Some("table")),
            ("max_conections", Some("max_connections")),
            ("", None),
            ("hunter2", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
        assert_eq!((distance("ab", "ba"), distance("", "abc"), distance("kitten", "sitting")), (1, 3, 3));
    }
}
