//! Conditions of a query that are easily taken for others, and pages whose end is gone.

use std::collections::BTreeMap;

use storage_core::{Comparison, Entry, FieldValue, Filter, Metadata, OrderBy, Query};

use crate::{
    Context, Outcome,
    assert::{expect_eq, expect_some},
    checks::query::{agrees, fill},
    model,
    numbers::Pace,
    support::with,
};

/// All conditions hold, also several on one field, on tags, on sizes and on the content type, in whichever order.
/// Profile: full
pub async fn all_of_them_hold(c: Context) -> Outcome {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let (s, pace) = (&c.storage, Pace::begin());
    let mut data = BTreeMap::new();
    for i in 0..20_i64 {
        let mut metadata =
            Metadata::new().field("int", i).field("float", i as f64 / 2.0).field("text", format!("{i:02}"));
        metadata = (0..20).filter(|bit| (i + 1) % (bit + 1) == 0).fold(metadata, |all, bit| all.tag(format!("t{bit}")));
        metadata =
            metadata.field("mixed", if i % 2 == 0 { FieldValue::from(i) } else { FieldValue::from(i.to_string()) });
        data.insert(format!("k{i:02}"), metadata.content_type(["text/plain", "text/html"][(i % 2) as usize]));
    }
    let data = fill(s, data).await?;
    let value = |name: &str, n: i64| -> FieldValue {
        match name {
            "float" => (n as f64 / 2.0).into(),
            "text" => format!("{n:02}").into(),
            _ => n.into(),
        }
    };
    for name in ["int", "float", "text", "mixed"] {
        let pairs = [
            (Greater, 5, Less, 10),
            (GreaterOrEqual, 5, LessOrEqual, 5),
            (Less, 5, Greater, 10),
            (NotEqual, 3, NotEqual, 4),
            (Equal, 3, Equal, 4),
            (Equal, 3, LessOrEqual, 10),
            (Greater, 2, NotEqual, 5),
            (Greater, 2, Greater, 12),
        ];
        for (one, a, other, b) in pairs.into_iter().take_while(|_| pace.goes_on()) {
            let (first, second) = ((one, value(name, a)), (other, value(name, b)));
            for [(x, a), (y, b)] in [[first.clone(), second.clone()], [second, first]] {
                agrees(s, &data, Query::new().field(name, x, a.clone()).field(name, y, b.clone())).await?;
                let third = Query::new().field(name, x, a).field("int", NotEqual, 7).field(name, y, b);
                agrees(s, &data, third.field("int", GreaterOrEqual, 4)).await?;
            }
        }
    }
    let tags = |set: &[usize]| set.iter().map(|n| format!("t{n}")).collect::<Vec<_>>();
    for (a, b) in [(vec![1], vec![2]), (vec![1, 2], vec![3]), (vec![0], vec![17]), (vec![4, 9], vec![1, 19])] {
        for (a, b) in [(tags(&a), tags(&b)), (tags(&b), tags(&a))] {
            agrees(s, &data, Query::new().any_tag(a.clone()).any_tag(b.clone())).await?;
            agrees(s, &data, Query::new().all_tags(a.clone()).all_tags(b.clone())).await?;
            agrees(s, &data, Query::new().any_tag(a.clone()).all_tags(b.clone())).await?;
            agrees(s, &data, Query::new().all_tags(a).field("int", Greater, 3).any_tag(b)).await?;
        }
    }
    for (a, b) in [(2, 5), (5, 2), (4, 4)] {
        for [x, y] in [
            [Filter::MinSize(a), Filter::MinSize(b)],
            [Filter::MaxSize(a), Filter::MaxSize(b)],
            [Filter::MinSize(a), Filter::MaxSize(b)],
        ] {
            agrees(s, &data, Query::new().filter(x).filter(y)).await?;
        }
    }
    for [a, b] in [["text/plain", "text/html"], ["text/html", "text/plain"], ["text/html", "text/html"]] {
        let both = Query::new().filter(Filter::ContentType(a.into())).filter(Filter::ContentType(b.into()));
        agrees(s, &data, both).await?;
    }
    // Any number of them, of which the last alone leaves something out.
    for count in [1, 2, 3, 5, 8, 9, 10, 16, 17].into_iter().take_while(|_| pace.goes_on()) {
        let many = (1..count).fold(Query::new(), |query, n| query.field("int", NotEqual, 100 + n));
        agrees(s, &data, many.field("float", Less, 3.0)).await?;
    }
    for count in [1, 2, 3, 10, 16, 17, 33, 64, 65, 100, 255, 256, 257].into_iter().take_while(|_| pace.goes_on()) {
        let unknown = (1..count).map(|n| format!("a{n}")).chain(["t3".to_owned()]);
        agrees(s, &data, Query::new().any_tag(unknown)).await?;
    }
    agrees(s, &data, Query::new().all_tags((0..20).map(|n| format!("t{n}")))).await
}

/// Integers are compared as integers and floats as floats, to the last bit: beyond 2^53 too, where a float cannot tell them
/// apart.
/// Profile: full
pub async fn numbers_to_the_last_bit(c: Context) -> Outcome {
    let (s, pace) = (&c.storage, Pace::begin());
    let mut ints: Vec<i64> = Vec::new();
    for near in [0, 1 << 24, 1 << 31, 1 << 32, 1 << 53, 1 << 54, 1 << 60, i64::MAX - 1] {
        ints.extend([near - 1, near, near + 1, -near - 1, -near, 1 - near]);
    }
    ints.extend([
        i64::MIN,
        i64::MAX,
        10_i64.pow(15) + 1,
        10_i64.pow(17) + 1,
        10_i64.pow(18) + 1,
        -(10_i64.pow(18)) - 1,
    ]);
    ints.sort_unstable();
    ints.dedup();
    let mut floats: Vec<f64> = Vec::new();
    for near in [0.1_f64, 1.0, 16_777_216.0, 9_007_199_254_740_992.0, 1e15, 1e22, 1e-7, 1e300, 5e-324] {
        let bits = near.to_bits();
        floats.extend(
            [bits.saturating_sub(1), bits, bits + 1]
                .into_iter()
                .flat_map(|bits| [f64::from_bits(bits), -f64::from_bits(bits)]),
        );
    }
    floats.extend([f64::MAX, f64::MIN, 0.1 + 0.2, 0.3, 1.0 / 3.0]);
    let numbers: Vec<FieldValue> =
        ints.into_iter().map(FieldValue::from).chain(floats.into_iter().map(FieldValue::from)).collect();
    let mut data = BTreeMap::new();
    for (i, number) in numbers.iter().enumerate() {
        // Neither the keys nor the sizes are in the order of the numbers.
        data.insert(format!("k{:03}", (i * 37) % 997), Metadata::new().field("f", number.clone()));
    }
    let data = fill(s, data).await?;
    for (i, number) in numbers.iter().enumerate().take_while(|_| pace.goes_on()) {
        agrees(s, &data, Query::new().equals("f", number.clone())).await?;
        let comparison = Comparison::ALL[i % Comparison::ALL.len()];
        agrees(s, &data, Query::new().field("f", comparison, number.clone())).await?;
    }
    for query in
        [Query::new().ascending(OrderBy::Field("f".into())), Query::new().descending(OrderBy::Field("f".into()))]
    {
        agrees(s, &data, query.clone()).await?;
        for entry in data.iter().step_by(3).take_while(|_| pace.goes_on()) {
            let behind = query.continuation_after(entry);
            agrees(s, &data, query.clone().limit(3).continuation(behind)).await?;
        }
    }
    Ok(())
}

/// A page goes on behind the last entry of the one before, also when that one was deleted meanwhile, or has another place.
/// Profile: full
pub async fn a_page_goes_on_without_its_last_entry(c: Context) -> Outcome {
    let (s, pace) = (&c.storage, Pace::begin());
    let orders = [
        OrderBy::Key,
        OrderBy::Size,
        OrderBy::Field("f".into()),
        OrderBy::Field("tie".into()),
        OrderBy::Modified,
        OrderBy::Created,
    ];
    for by in orders.into_iter().take_while(|_| pace.goes_on()) {
        for (descending, gone) in [(false, true), (true, true), (false, false)] {
            let mut data = BTreeMap::new();
            for i in 0..12_i64 {
                data.insert(
                    format!("k{:02}", (i * 5) % 12),
                    Metadata::new().tag("t").field("f", i).field("tie", i % 3),
                );
            }
            let mut data = fill(s, data).await?;
            let query = Query::new().any_tag(["t"]).limit(4);
            let query = if descending { query.descending(by.clone()) } else { query.ascending(by.clone()) };
            let page = s.query_page(query.clone()).await?;
            let what = format!("a page by {by:?}");
            expect_eq(&what, names(&page.entries), names(&model::answer(&data, &query)))?;
            let last = expect_some(&what, page.entries.last())?.key.clone();
            data.retain(|entry| entry.key != last);
            if gone {
                s.delete(&last).await?;
            } else {
                s.put_with(&last, "larger than all others", with(Metadata::new().field("f", 100))).await?;
            }
            let next = query.continuation(expect_some(&what, page.next)?);
            agrees(s, &data, next).await?;
        }
    }
    Ok(())
}

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}
