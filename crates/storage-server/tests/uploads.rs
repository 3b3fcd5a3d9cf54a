//! Resumable uploads: how they begin, go on, end, and what is left of them.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::Duration;

use reqwest::RequestBuilder;
use storage_core::Storage;
use storage_memory::Memory;
use storage_server::Config;
use support::{
    TokenFile, expect_problem, start, start_uploads,
    uploads::{Uploads, header, uploads},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn an_upload_in_parts_is_one_write_in_the_end() {
    let all = uploads(Config::default()).await;
    for put in ["/files/notes%2Ftoday", "/v1/objects/bm90ZXMvdG9kYXk"] {
        let request = all.server.request("PUT", put).header("content-type", "text/plain").body("water ");
        let path = all.begun(request.header("upload-length", 16)).await;
        assert_eq!(all.offset(&path).await, "6 ?0");
        let more = all.append(&path, 6, "?0", "the ").await;
        assert_eq!((more.status().as_u16(), header(&more, "upload-offset")), (204, "10"));
        // Nothing of it can be seen.
        assert_eq!(all.server.count().await, 0);
        assert_eq!(all.server.status("GET", "/files/notes%2Ftoday").await, 404);
        expect_problem(all.server.request("GET", &path).send().await.unwrap(), 405, "unsupported").await;
        let last = all.append(&path, 10, "?1", "plants").await;
        assert_eq!((last.status().as_u16(), header(&last, "upload-complete")), (200, "?1"));
        let etag = header(&last, "etag").to_owned();
        assert!(last.text().await.unwrap().contains("\"size\":16"));
        let value = all.server.request("GET", "/files/notes%2Ftoday").send().await.unwrap();
        assert_eq!((header(&value, "content-type"), header(&value, "etag")), ("text/plain", &*etag));
        assert_eq!(value.text().await.unwrap(), "water the plants");
        // It is known for a while that it is complete; its bytes are kept once only.
        assert_eq!(all.offset(&path).await, "16 ?1");
        assert_eq!(all.kept().await, ["record"]);
        let again = expect_problem(all.append(&path, 16, "?1", "").await, 410, "closed").await;
        assert!(again.contains("#completed-upload") && again.contains("status 200"), "{again}");
        let more = expect_problem(all.append(&path, 16, "?1", "more").await, 400, "invalid_input").await;
        assert!(more.contains("#inconsistent-upload-length"), "{more}");
        assert_eq!(all.server.status("DELETE", &path).await, 204);
        assert_eq!(all.server.status("HEAD", &path).await, 404);
        assert!(all.kept().await.is_empty());
        all.server.storage.delete("notes/today").await.unwrap();
    }
}

#[tokio::test]
async fn an_upload_may_be_empty_and_be_cancelled() {
    let all = uploads(Config::default()).await;
    let path = all.begin("/files/empty").await;
    assert_eq!(all.append(&path, 0, "?1", "").await.status(), 200);
    assert_eq!(all.server.storage.get("empty").await.unwrap().unwrap(), "");
    let path = all.begin("/files/k").await;
    all.append(&path, 0, "?0", "bytes").await;
    assert_eq!(all.server.status("DELETE", &path).await, 204);
    for method in ["HEAD", "DELETE"] {
        assert_eq!(all.server.status(method, &path).await, 404);
    }
    let gone = expect_problem(all.append(&path, 5, "?1", "").await, 404, "not_found").await;
    assert!(gone.contains("no_upload"), "{gone}");
    assert_eq!((all.server.count().await, all.kept().await), (1, vec!["record".into()]));
}

#[tokio::test]
async fn what_came_before_a_connection_broke_is_kept() {
    let all = uploads(Config::default()).await;
    let path = all.begin("/files/k").await;
    let mut stream = TcpStream::connect(all.server.address).await.unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/partial-upload\r\nupload-offset: 0\r\n\
         upload-complete: ?1\r\ncontent-length: 100\r\n\r\nhalf",
        all.server.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    // Asking ends what is under way.
    assert_eq!(all.offset(&path).await, "4 ?0");
    assert_eq!(all.server.count().await, 0);
    assert_eq!(all.append(&path, 4, "?1", " way").await.status(), 400);
    assert_eq!(all.patch(&path, 4, "?1", "x".repeat(96)).send().await.unwrap().status(), 200);
    assert_eq!(all.server.storage.get("k").await.unwrap().unwrap().len(), 100);
}

#[tokio::test]
async fn a_wrong_offset_is_refused_with_the_right_one() {
    let all = uploads(Config::default()).await;
    let path = all.begin("/files/k").await;
    all.append(&path, 0, "?0", "abc").await;
    for wrong in [0, 2, 4] {
        let refused = all.append(&path, wrong, "?1", "def").await;
        assert_eq!((header(&refused, "upload-offset"), header(&refused, "upload-complete")), ("3", "?0"));
        let text = expect_problem(refused, 409, "conflict").await;
        let offsets = format!("\"expected-offset\":3,\"provided-offset\":{wrong}");
        assert!(text.contains("#mismatching-upload-offset") && text.contains(&offsets), "{text}");
    }
    // What names no offset, or is no part of an upload.
    let part = || all.server.request("PATCH", &path).header("content-type", "application/partial-upload").body("def");
    let partial = |request: RequestBuilder| async move { request.send().await.unwrap().status().as_u16() };
    assert_eq!(partial(part().header("upload-complete", "?0")).await, 400);
    assert_eq!(partial(part().header("upload-offset", 3)).await, 400);
    assert_eq!(partial(part().header("upload-offset", "3").header("upload-complete", "1")).await, 400);
    assert_eq!(partial(part().header("upload-offset", "-3").header("upload-complete", "?0")).await, 400);
    let other = all.server.request("PATCH", &path).header("upload-offset", 3).header("upload-complete", "?0");
    expect_problem(other.body("def").send().await.unwrap(), 415, "invalid_input").await;
    assert_eq!(all.offset(&path).await, "3 ?0");
    assert_eq!(all.server.count().await, 0);
}

#[tokio::test]
async fn of_two_appends_at_once_the_first_ends_and_nothing_is_mixed() {
    let all = uploads(Config::default()).await;
    let path = all.begin("/files/k").await;
    let mut first = TcpStream::connect(all.server.address).await.unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/partial-upload\r\nupload-offset: 0\r\n\
         upload-complete: ?1\r\ncontent-length: 10\r\n\r\nfirst",
        all.server.address
    );
    first.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = all.append(&path, 0, "?1", "second").await;
    assert_eq!(header(&second, "upload-offset"), "5");
    expect_problem(second, 409, "conflict").await;
    let mut answer = String::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), first.read_to_string(&mut answer)).await;
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
    assert_eq!(all.append(&path, 5, "?1", "-last").await.status(), 200);
    assert_eq!(all.server.storage.get("k").await.unwrap().unwrap(), "first-last");
    // Many at once: one of them is done.
    let path = all.begin("/files/many").await;
    let appends = (0..8).map(|n| all.patch(&path, 0, "?1", n.to_string().repeat(1000)).send());
    let done = futures_util::future::join_all(appends).await.into_iter().filter(|answer| {
        let answer = answer.as_ref().unwrap();
        answer.status() == 200
    });
    assert!(done.count() <= 1);
    let length = all.server.storage.get("many").await.unwrap().map_or(1000, |value| {
        assert!(value.iter().all(|byte| *byte == value[0]));
        value.len()
    });
    assert_eq!(length, 1000);
}

#[tokio::test]
async fn an_upload_that_has_expired_is_deleted() {
    let mut config = Config::default();
    config.upload_lifetime = Duration::from_secs(1);
    let all = uploads(config).await;
    let path = all.begin("/files/k").await;
    all.append(&path, 0, "?0", "bytes").await;
    // One that a client is still at is not spared.
    let mut slow = TcpStream::connect(all.server.address).await.unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/partial-upload\r\nupload-offset: 5\r\n\
         upload-complete: ?1\r\ncontent-length: 100\r\n\r\nslow",
        all.server.address
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    expect_problem(all.append(&path, 5, "?1", "").await, 404, "not_found").await;
    for _ in 0..50 {
        if all.kept().await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(all.kept().await.is_empty(), "{:?}", all.kept().await);
    assert_eq!(all.server.count().await, 0);
}

fn chunked(text: &'static str) -> reqwest::Body {
    let pieces = text.as_bytes().chunks(1).map(|piece| Ok::<_, std::io::Error>(bytes::Bytes::from_static(piece)));
    reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
}

#[tokio::test]
async fn what_is_too_large_or_not_as_long_as_it_says_is_refused() {
    let mut config = Config::default();
    config.max_value = Some(10);
    let all = uploads(config).await;
    let large = |request: RequestBuilder| async move {
        let refused = request.send().await.unwrap();
        assert!(header(&refused, "upload-limit").contains("max-size=10"), "{:?}", refused.headers());
        expect_problem(refused, 413, "too_large").await;
    };
    let put = || all.server.request("PUT", "/files/k").header("upload-complete", "?0");
    large(put().header("upload-length", 11)).await;
    large(put().body("elevenbytes")).await;
    large(put().body(chunked("elevenbytes"))).await;
    let path = all.begin("/files/k").await;
    large(all.patch(&path, 0, "?0", "elevenbytes")).await;
    large(all.patch(&path, 0, "?0", "x").header("upload-length", 11)).await;
    assert_eq!(all.offset(&path).await, "0 ?0");
    // As it comes, an upload ends that gets too much.
    large(all.patch(&path, 0, "?0", chunked("elevenbytes"))).await;
    assert_eq!(all.server.status("HEAD", &path).await, 404);
    let inconsistent = |request: RequestBuilder| async move {
        let text = expect_problem(request.send().await.unwrap(), 400, "invalid_input").await;
        assert!(text.contains("#inconsistent-upload-length"), "{text}");
    };
    inconsistent(put().header("upload-length", 3).body("four")).await;
    inconsistent(
        all.server.request("PUT", "/files/k").header("upload-complete", "?1").header("upload-length", 3).body("four"),
    )
    .await;
    let path = all.begun(all.server.request("PUT", "/files/k").header("upload-length", 5)).await;
    inconsistent(all.patch(&path, 0, "?0", "x").header("upload-length", 6)).await;
    inconsistent(all.patch(&path, 0, "?1", "four")).await;
    inconsistent(all.patch(&path, 0, "?0", "sixsix")).await;
    assert_eq!(all.append(&path, 0, "?0", "four").await.status(), 204);
    inconsistent(all.patch(&path, 4, "?1", chunked("more"))).await;
    assert_eq!(all.server.status("HEAD", &path).await, 404);
    assert_eq!(all.server.count().await, 0);
    assert!(all.kept().await.is_empty(), "{:?}", all.kept().await);
}

#[tokio::test]
async fn the_condition_holds_when_the_value_is_written() {
    let all = uploads(Config::default()).await;
    let create = || all.server.request("PUT", "/files/k").header("if-none-match", "*");
    let (one, two) = (all.begun(create()).await, all.begun(create()).await);
    assert_eq!(all.append(&one, 0, "?1", "one").await.status(), 201);
    let late = all.append(&two, 0, "?1", "two").await;
    assert_eq!(header(&late, "upload-complete"), "?1");
    expect_problem(late, 412, "already_exists").await;
    assert_eq!(all.offset(&two).await, "3 ?1");
    let etag = header(&all.server.request("HEAD", "/files/k").send().await.unwrap(), "etag").to_owned();
    let path = all.begun(all.server.request("PUT", "/files/k").header("if-match", &etag)).await;
    all.server.storage.put("k", "of another").await.unwrap();
    expect_problem(all.append(&path, 0, "?1", "three").await, 412, "precondition_failed").await;
    assert_eq!(all.server.storage.get("k").await.unwrap().unwrap(), "of another");
}

#[tokio::test]
async fn the_last_append_has_a_write_id_like_every_write() {
    let all = uploads(Config::default()).await;
    let about = all.server.request("GET", "/v1").send().await.unwrap().text().await.unwrap();
    let about: serde_json::Value = serde_json::from_str(&about).unwrap();
    let id = format!("{}.{}.0123456789abcdef", about["boot"].as_str().unwrap(), about["uptime_ms"]);
    let path = all.begin("/files/k").await;
    let last = || all.patch(&path, 0, "?1", "value").header("storage-write-id", &id);
    let first = last().send().await.unwrap().text().await.unwrap();
    all.server.storage.put("k", "of another").await.unwrap();
    assert_eq!(last().send().await.unwrap().text().await.unwrap(), first);
    assert_eq!(all.server.storage.get("k").await.unwrap().unwrap(), "of another");
    let settled = all.server.request("POST", &format!("/v1/writes/{id}")).send().await.unwrap().text().await.unwrap();
    assert!(settled.contains("\"done\":true"), "{settled}");
}

#[tokio::test]
async fn digests_of_a_part_and_of_the_whole_are_checked() {
    let all = uploads(Config::default()).await;
    let wrong = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    let path = all.begun(all.server.request("PUT", "/files/k").header("repr-digest", wrong)).await;
    all.append(&path, 0, "?0", "va").await;
    let part = all.patch(&path, 2, "?1", "lue").header("content-digest", wrong).send().await.unwrap();
    assert!(expect_problem(part, 400, "invalid_input").await.contains("wrong_digest"));
    assert_eq!(all.offset(&path).await, "2 ?0");
    let whole = all.append(&path, 2, "?1", "lue").await;
    assert_eq!(header(&whole, "upload-complete"), "?1");
    assert!(expect_problem(whole, 400, "invalid_input").await.contains("wrong_digest"));
    assert_eq!(all.server.count().await, 0);
    // That of nothing at all is right for an empty value.
    let path = all.begun(all.server.request("PUT", "/files/k").header("repr-digest", wrong)).await;
    assert_eq!(all.append(&path, 0, "?1", "").await.status(), 200);
    let bad = all.server.request("PUT", "/files/k").header("upload-complete", "?0").header("repr-digest", "sha-256=x");
    expect_problem(bad.send().await.unwrap(), 400, "invalid_input").await;
}

#[tokio::test]
async fn an_upload_belongs_to_a_token_that_may_write_its_key() {
    let file = TokenFile::new(
        "[[token]]\nname = 'team'\nsecret = 'team-0123456789abcdef'\nscopes = ['write']\nprefix = 'team/'\n\
         [[token]]\nname = 'other'\nsecret = 'other-0123456789abcdef'\nscopes = ['read', 'write']\n\
         [[token]]\nname = 'reader'\nsecret = 'reader-0123456789abcdef'\nscopes = ['read']\n",
    );
    let mut config = file.config();
    config.max_uploads = 2;
    let all = uploads(config).await;
    let of = |who: &str, request: RequestBuilder| request.bearer_auth(format!("{who}-0123456789abcdef"));
    let put = |who: &str, path: &str| of(who, all.server.request("PUT", path)).header("upload-complete", "?0").send();
    assert_eq!(put("reader", "/files/k").await.unwrap().status(), 403);
    assert_eq!(put("team", "/files/k").await.unwrap().status(), 403);
    assert_eq!(all.server.status("PUT", "/files/k").await, 401);
    let path = all.begun(of("team", all.server.request("PUT", "/files/team%2Fk"))).await;
    for method in ["HEAD", "DELETE"] {
        let answer = of("other", all.server.request(method, &path)).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{method}");
    }
    assert_eq!(of("other", all.patch(&path, 0, "?1", "stolen")).send().await.unwrap().status(), 404);
    // So many at once of one token; what is complete does not count.
    assert_eq!(put("team", "/files/team%2Fl").await.unwrap().status(), 201);
    expect_problem(put("team", "/files/team%2Fm").await.unwrap(), 429, "rate_limited").await;
    assert_eq!(put("other", "/files/m").await.unwrap().status(), 201);
    assert_eq!(of("team", all.patch(&path, 0, "?1", "value")).send().await.unwrap().status(), 200);
    assert_eq!(put("team", "/files/team%2Fm").await.unwrap().status(), 201);
    // Where the scope has gone meanwhile, so has the upload.
    let path = all.begun(of("other", all.server.request("PUT", "/files/n"))).await;
    let text = std::fs::read_to_string(&file.0).unwrap().replace("['read', 'write']", "['read']");
    std::fs::write(&file.0, text).unwrap();
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(of("other", all.patch(&path, 0, "?1", "late")).send().await.unwrap().status(), 403);
    assert!(all.server.storage.get("n").await.unwrap().is_none());
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart_unless_its_end_was_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, parts) =
        (Storage::new(Memory::new()), || async { Storage::new(storage_fs::Fs::open(dir.path()).await.unwrap()) });
    let mut server = start_uploads(storage.clone(), parts().await, Config::default(), 0).await;
    let mut all = Uploads { server, parts: parts().await };
    let (open, ending) = (all.begin("/files/open").await, all.begin("/files/ending").await);
    all.append(&open, 0, "?0", "before ").await;
    let done = all.begin("/files/done").await;
    all.append(&done, 0, "?1", "done").await;
    all.server.end();
    all.server.ended.await.unwrap();
    // As a kill would leave it while the value is written; and parts of an upload that was deleted.
    let record = format!("record/{}", ending.rsplit('/').next().unwrap());
    let text = String::from_utf8(all.parts.get(&*record).await.unwrap().unwrap().to_vec()).unwrap();
    assert!(text.contains("\"Open\""), "{text}");
    all.parts.put(&*record, text.replace("\"Open\"", "\"Finishing\"")).await.unwrap();
    all.parts.put("part/AAAAAAAAAAAAAAAAAAAAAA/00000000000000000000", "orphan").await.unwrap();
    all.parts.disconnect().await.unwrap();
    server = start_uploads(storage.clone(), parts().await, Config::default(), 0).await;
    let all = Uploads { server, parts: parts().await };
    assert_eq!(all.offset(&open).await, "7 ?0");
    assert_eq!(all.append(&open, 7, "?1", "and after").await.status(), 200);
    assert_eq!(storage.get("open").await.unwrap().unwrap(), "before and after");
    assert_eq!(all.offset(&done).await, "4 ?1");
    let unknown = expect_problem(all.append(&ending, 0, "?1", "").await, 409, "conflict").await;
    assert!(unknown.contains("\"ambiguous\":true") && unknown.contains("stale_write_id"), "{unknown}");
    assert!(storage.get("ending").await.unwrap().is_none());
    assert_eq!(all.server.status("DELETE", &ending).await, 204);
    assert_eq!(all.kept().await, ["record"; 2]);
}

#[tokio::test]
async fn a_part_is_never_taken_for_the_whole() {
    let server = start(Config::default()).await;
    let put =
        |complete: &'static str| server.request("PUT", "/files/k").header("upload-complete", complete).body("part");
    expect_problem(put("?0").send().await.unwrap(), 501, "unsupported").await;
    expect_problem(put("false").send().await.unwrap(), 400, "invalid_input").await;
    assert_eq!(server.status("OPTIONS", "/files/k").await, 405);
    assert_eq!(server.status("HEAD", "/v1/uploads/AAAA").await, 404);
    assert_eq!(server.count().await, 0);
    assert_eq!(put("?1").send().await.unwrap().status(), 200);
    let all = uploads(Config::default()).await;
    for (path, allowed) in [("/files/k", "PUT"), ("/v1/objects/aw", "PUT"), ("/v1/uploads/AAAA", "PATCH")] {
        let options = all.server.request("OPTIONS", path).send().await.unwrap();
        assert!(options.status() == 204 && header(&options, "allow").contains(allowed), "{:?}", options.headers());
        assert_eq!(header(&options, "accept-patch"), "application/partial-upload");
        assert!(header(&options, "upload-limit").contains("max-age=86400"), "{:?}", options.headers());
    }
    let put = || all.server.request("PUT", "/files/k").header("upload-complete", "?0");
    expect_problem(put().header("content-encoding", "gzip").send().await.unwrap(), 415, "unsupported").await;
    expect_problem(put().header("storage-source", "AA").send().await.unwrap(), 501, "unsupported").await;
    expect_problem(put().header("upload-offset", 0).send().await.unwrap(), 400, "invalid_input").await;
    assert!(all.kept().await.is_empty());
}
