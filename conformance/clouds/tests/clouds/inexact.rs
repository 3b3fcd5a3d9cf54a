//! Servers that list names twice, leave out times, lengths and etags, or write times in their own way.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::TryStreamExt;
use storage_cloud_tests::{Answer, Cloud, Server};
use storage_core::{GetOptions, ListItem, ListOptions, Storage};
use storage_object_store::ObjectStoreBackend;

async fn connected(cloud: Cloud) -> (Server, Storage<ObjectStoreBackend>) {
    let server = Server::start(cloud).await.unwrap();
    (server.clone(), server.connect().await.unwrap())
}

async fn keys(storage: &Storage<ObjectStoreBackend>, options: ListOptions) -> Vec<String> {
    let items = storage.list_with(options).await.unwrap();
    items.map_ok(|item: ListItem| item.position().to_owned()).try_collect().await.unwrap()
}

/// The elements of an answer that are objects or directories, and what stands before and behind them.
fn elements(text: &str) -> (String, Vec<String>, String) {
    let names = ["Contents", "Blob", "CommonPrefixes", "BlobPrefix"];
    let (mut found, mut outside) = (Vec::new(), text.to_owned());
    for name in names {
        while let Some(start) = outside.find(&format!("<{name}>")) {
            let end = outside.find(&format!("</{name}>")).unwrap() + name.len() + 3;
            found.push(outside[start..end].to_owned());
            outside.replace_range(start..end, if found.len() == 1 { "@" } else { "" });
        }
    }
    let (before, behind) = outside.split_once('@').unwrap_or((&outside, ""));
    (before.to_owned(), found, behind.to_owned())
}

#[tokio::test]
async fn a_name_that_is_listed_twice_is_shown_once() {
    type Twice = fn(Vec<String>) -> Vec<String>;
    let within: [(&str, Twice); 3] = [
        ("beside each other", |all| all.iter().flat_map(|one| [one.clone(), one.clone()]).collect()),
        ("one page behind the other", |all| [all.clone(), all].concat()),
        ("backwards", |all| all.iter().rev().flat_map(|one| [one.clone(), one.clone()]).collect()),
    ];
    for cloud in Cloud::ALL {
        let (server, storage) = connected(cloud).await;
        let all = ["a", "b", "c/d", "c/e", "f"];
        for key in all {
            storage.put(key, "v").await.unwrap();
        }
        for (what, twice) in within {
            server.answer(move |asked, serve| {
                let answer = serve();
                if !asked.lists() {
                    return answer;
                }
                let (before, found, behind) = elements(&String::from_utf8_lossy(&answer.body));
                Answer { body: (before + &twice(found).concat() + &behind).into_bytes(), ..answer }
            });
            assert_eq!(keys(&storage, ListOptions::new()).await, all, "{cloud:?}, {what}");
            assert_eq!(keys(&storage, ListOptions::new().prefix("c")).await, ["c/d", "c/e"], "{cloud:?}, {what}");
            let level = keys(&storage, ListOptions::new().delimited(true)).await;
            assert_eq!(level, ["a", "b", "c/", "f"], "{cloud:?}, {what}");
        }
        // Each page begins with the last name of the page before.
        server.store().page = 2;
        server.answer(move |asked, serve| {
            let answer = serve();
            let tokens = ["continuation-token", "marker"];
            let Some(last) = tokens.iter().find_map(|token| asked.query.get(*token)).filter(|_| asked.lists()) else {
                return answer;
            };
            let time = "<LastModified>2026-01-02T03:04:05Z</LastModified><ETag>\"e\"</ETag><Size>1</Size><Generation>7</Generation>";
            let again = match (last.ends_with('/'), cloud) {
                (true, Cloud::Azure) => format!("<BlobPrefix><Name>{last}</Name></BlobPrefix>"),
                (true, _) => format!("<CommonPrefixes><Prefix>{last}</Prefix></CommonPrefixes>"),
                (false, Cloud::Azure) => format!(
                    "<Blob><Name>{last}</Name><Properties><Etag>e</Etag><Content-Length>1</Content-Length></Properties></Blob>"
                ),
                (false, _) => format!("<Contents><Key>{last}</Key>{time}</Contents>"),
            };
            let (before, found, behind) = elements(&String::from_utf8_lossy(&answer.body));
            Answer { body: (before + &again + &found.concat() + &behind).into_bytes(), ..answer }
        });
        assert_eq!(keys(&storage, ListOptions::new()).await, all, "{cloud:?}");
        assert_eq!(keys(&storage, ListOptions::new().delimited(true)).await, ["a", "b", "c/", "f"], "{cloud:?}");
        server.requests();
        storage.clear().await.unwrap();
        for asked in server.requests().iter().filter(|asked| asked.method == "POST" && asked.has("delete")) {
            let text = String::from_utf8_lossy(&asked.body).into_owned();
            let named: Vec<_> = text.split("<Key>").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
            let mut once = named.clone();
            once.dedup();
            assert_eq!(named, once, "a request names each key once");
        }
        server.behave();
        assert!(keys(&storage, ListOptions::new()).await.is_empty(), "{cloud:?}");
    }
}

#[tokio::test]
async fn an_unordered_listing_is_told_to_those_who_can_mend_it() {
    for cloud in Cloud::ALL {
        let (server, storage) = connected(cloud).await;
        for key in ["a", "b", "c", "d"] {
            storage.put(key, "v").await.unwrap();
        }
        server.store().page = 2;
        // The second page comes first.
        server.answer(move |asked, serve| {
            let begins = !asked.has("continuation-token") && !asked.has("marker");
            let answer = serve();
            match (asked.lists(), begins) {
                (false, _) => answer,
                (true, true) => answer
                    .replace(">a<", ">y<")
                    .replace(">b<", ">z<")
                    .replace("Token>z<", "Token>b<")
                    .replace("Marker>z<", "Marker>b<"),
                (true, false) => answer,
            }
        });
        for options in [ListOptions::new(), ListOptions::new().delimited(true)] {
            let listed = async { storage.list_with(options).await?.try_collect::<Vec<_>>().await };
            let error = listed.await.unwrap_err();
            assert!(error.message().contains("order") && !error.message().contains("profile"), "{cloud:?}: {error:?}");
        }
    }
}

#[tokio::test]
async fn times_are_read_as_they_are_written_or_not_known() {
    let seconds = |entry: storage_core::Entry| {
        let modified = entry.modified?;
        Some(modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs())
    };
    let right = Some(1_767_323_045);
    for cloud in Cloud::ALL {
        let (server, storage) = connected(cloud).await;
        storage.put("k", "v").await.unwrap();
        for (text, expected) in [
            ("2026-01-02T03:04:05", right),
            ("2026-01-02 03:04:05", right),
            ("2026-01-02 03:04:05Z", right),
            ("2026-01-02 05:04:05+02:00", right),
            ("Fri, 02 Jan 2026 03:04:05 GMT", right),
            ("Fri, 02 Jan 2026 03:04:05", right),
            ("", None),
            ("yesterday", None),
        ] {
            server.answer(move |asked, serve| {
                let answer = serve();
                if !asked.lists() {
                    return answer.without("last-modified").header("last-modified", text);
                }
                let answer = answer.replace("2026-01-02T03:04:05.000Z", text);
                answer.replace("Fri, 02 Jan 2026 03:04:05 GMT", text)
            });
            assert_eq!(seconds(storage.stat("k").await.unwrap().unwrap()), expected, "{cloud:?}: {text:?}");
            let object = storage.open("k", GetOptions::new()).await.unwrap().unwrap();
            assert_eq!(seconds(object.entry), expected, "{cloud:?}: {text:?}");
            let listed: Vec<_> = storage.list("").await.unwrap().try_collect().await.unwrap();
            assert_eq!(listed.into_iter().map(seconds).collect::<Vec<_>>(), [expected], "{cloud:?}: {text:?}");
        }
        // Nor is it there at all.
        server.answer(|asked, serve| {
            let answer = serve().without("last-modified");
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let Some((before, rest)) = text.split_once("<Last").filter(|_| asked.lists()) else { return answer };
            let (_, behind) = rest.split_once("</Last").unwrap();
            let (_, behind) = behind.split_once('>').unwrap();
            Answer { body: format!("{before}{behind}").into_bytes(), ..answer }
        });
        let listed: Vec<_> = storage.list("").await.unwrap().try_collect().await.unwrap();
        assert_eq!(listed[0].modified, None, "{cloud:?}");
        assert_eq!(storage.stat("k").await.unwrap().unwrap().modified, None, "{cloud:?}");
        assert_eq!(storage.get("k").await.unwrap().unwrap(), "v", "{cloud:?}");
        storage.put("k", "w").await.unwrap();
    }
}

#[tokio::test]
async fn a_length_that_is_not_said_is_found_out() {
    for cloud in Cloud::ALL {
        for size in [0, 1, 100_000, 3 << 20] {
            let (server, storage) = connected(cloud).await;
            let value: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            storage.put("k", value.clone()).await.unwrap();
            server.answer(|asked, serve| Answer { unsized_: !asked.name.is_empty(), ..serve() });
            let stat = storage.stat("k").await;
            assert_eq!(stat.unwrap().unwrap().size, size as u64, "{cloud:?}, {size}");
            assert!(storage.get("k").await.unwrap().unwrap() == value, "{cloud:?}, {size}");
            if size > 0 {
                let part = storage.get_with("k", GetOptions::new().range(0..1)).await.unwrap().unwrap();
                assert_eq!(part, value[..1], "{cloud:?}, {size}");
            }
            assert_eq!(storage.get("absent").await.unwrap(), None);
            storage.put("k", "again").await.unwrap();
        }
    }
}

/// S3's own listings and answers may leave out the etag; that of the others always have one.
#[tokio::test]
async fn an_etag_that_is_not_said_is_none() {
    let (server, storage) = connected(Cloud::S3).await;
    storage.put("k", "v").await.unwrap();
    server.answer(|asked, serve| {
        let answer = serve();
        if asked.method == "PUT" {
            answer
        } else {
            answer.without("etag").replace("<ETag>", "<Was>").replace("</ETag>", "</Was>")
        }
    });
    assert_eq!(storage.stat("k").await.unwrap().unwrap().etag, None);
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
    let listed: Vec<_> = storage.list("").await.unwrap().try_collect().await.unwrap();
    assert_eq!(listed[0].etag, None);
    for cloud in [Cloud::Azure, Cloud::Gcs] {
        let (server, storage) = connected(cloud).await;
        storage.put("k", "v").await.unwrap();
        server.answer(|_, serve| serve().without("etag"));
        for error in [storage.get("k").await.map(drop).unwrap_err(), storage.stat("k").await.map(drop).unwrap_err()] {
            assert!(error.message().contains("does not answer as"), "{cloud:?}: {error:?}");
        }
    }
}
