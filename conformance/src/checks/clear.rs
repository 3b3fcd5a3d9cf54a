//! Deleting many at once.

use crate::{
    Context, Outcome,
    assert::expect_eq,
    support::{expect_value, keys, put_all, sorted, usable},
};

/// `clear(prefix)` removes exactly what a listing of this literal prefix shows.
pub async fn exactly_the_prefix(c: Context) -> Outcome {
    let all = [
        "user1",
        "user1/a",
        "user1/b/c",
        "user10",
        "user10/a",
        "user2/a",
        "use",
        "User1/a",
        "user_",
        "user_/a",
        "user%",
        "userx",
        "user*",
        "é/a",
        "e\u{301}/a",
        "user1\u{10ffff}",
        "v",
    ];
    let all = usable(&c.storage, all);
    for prefix in
        ["user1/", "user1", "user_", "user%", "user", "user*", "é", "absent", "user1/b/", "v", "user1\u{10ffff}"]
    {
        put_all(&c.storage, &all).await?;
        c.storage.clear_prefix(prefix).await?;
        let expected = sorted(all.iter().filter(|key| !key.starts_with(prefix)));
        let what = format!("the keys after clearing {prefix:?}");
        expect_eq(&what, keys(&c.storage, "").await?, expected)?;
    }
    Ok(())
}

/// Without a prefix, `clear` empties the backend's own namespace, and only this one.
pub async fn own_namespace_only(c: Context) -> Outcome {
    let other = c.other_namespace().await?;
    let all = usable(&c.storage, ["a", "b/c", "/", "..", "../x"]);
    for s in [&c.storage, &other] {
        put_all(s, &all).await?;
    }
    c.storage.clear().await?;
    expect_eq("the own keys", keys(&c.storage, "").await?, [""; 0])?;
    expect_eq("the other's keys", keys(&other, "").await?, sorted(&all))?;
    c.storage.clear().await?;
    c.storage.put("a", "again").await?;
    expect_value(&c.storage, "a", Some(b"again")).await?;
    expect_value(&other, "a", Some(b"a")).await
}

/// However many there are.
pub async fn many(c: Context) -> Outcome {
    let all: Vec<String> = (0..2100).map(|i| format!("{}/{i}", ["a", "b"][i % 2])).collect();
    put_all(&c.storage, &all).await?;
    c.storage.clear_prefix("a/").await?;
    expect_eq("the keys with the prefix", keys(&c.storage, "a/").await?, [""; 0])?;
    expect_eq("the number of other keys", keys(&c.storage, "").await?.len(), 1050)?;
    c.storage.clear().await?;
    expect_eq("the keys", keys(&c.storage, "").await?, [""; 0])
}
