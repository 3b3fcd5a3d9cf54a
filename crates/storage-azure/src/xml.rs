//! What Azure answers to a listing.

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use storage_core::Result;
use storage_object_store::{ListedObject, Page, http::time};

use crate::error::{self, AZURE};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    blobs: Blobs,
    next_marker: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blobs {
    #[serde(default)]
    blob: Vec<Blob>,
    #[serde(default)]
    blob_prefix: Vec<Below>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blob {
    name: Name,
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Below {
    name: Name,
}

/// A name, which is percent-encoded where XML cannot hold it.
#[derive(Deserialize)]
struct Name {
    #[serde(rename = "@Encoded", default)]
    encoded: bool,
    #[serde(rename = "$text", default)]
    text: String,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(rename = "Last-Modified")]
    modified: Option<String>,
    #[serde(rename = "Etag")]
    etag: Option<String>,
    #[serde(rename = "Content-Length")]
    size: u64,
}

/// A page of blobs.
pub(crate) fn page(body: &[u8]) -> Result<Page> {
    AZURE.expect(body, &["EnumerationResults"])?;
    let listing: Listing = quick_xml::de::from_reader(body).map_err(error::malformed_response)?;
    let found = |blob: Blob| {
        Ok(ListedObject {
            name: blob.name.read()?,
            size: blob.properties.size,
            modified: blob.properties.modified.as_deref().and_then(time),
            etag: blob.properties.etag.map(quoted),
            version: None,
            deleted: false,
        })
    };
    Ok(Page {
        objects: listing.blobs.blob.into_iter().map(found).collect::<Result<_>>()?,
        prefixes: listing.blobs.blob_prefix.into_iter().map(|below| below.name.read()).collect::<Result<_>>()?,
        next: listing.next_marker.filter(|next| !next.is_empty()),
    })
}

impl Name {
    fn read(self) -> Result<String> {
        if !self.encoded {
            return Ok(self.text);
        }
        Ok(percent_decode_str(&self.text).decode_utf8().map_err(error::malformed_response)?.into_owned())
    }
}

/// Listings leave out the quotes that other answers have.
fn quoted(etag: String) -> String {
    if etag.starts_with('"') { etag } else { format!("\"{etag}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_spaces_and_decodes_names() {
        let properties = "<Properties><Last-Modified>Sun, 22 Nov 2026 04:05:06 GMT</Last-Modified><Etag>0x1</Etag>\
                          <Content-Length>7</Content-Length><BlobType>BlockBlob</BlobType></Properties>";
        let body = format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName=\"c\"><Prefix/><Blobs>\
             <Blob><Name> a &amp; b </Name>{properties}</Blob><BlobPrefix><Name>dir/</Name></BlobPrefix>\
             <Blob><Name Encoded=\"true\">x%EF%BF%BE</Name>{properties}</Blob></Blobs><NextMarker>m</NextMarker>\
             </EnumerationResults>"
        );
        let page = page(body.as_bytes()).unwrap();
        let names: Vec<_> = page.objects.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, [" a & b ", "x\u{fffe}"]);
        assert_eq!((page.objects[0].size, page.objects[0].etag.as_deref()), (7, Some("\"0x1\"")));
        assert_eq!((page.prefixes, page.next.as_deref()), (vec!["dir/".to_owned()], Some("m")));
    }

    #[test]
    fn what_is_no_answer_of_azure_is_said_to_be_none() {
        for body in [&b"<html><body>hello</body></html>"[..], b"", b"{}"] {
            assert!(page(body).is_err());
        }
        let empty = b"<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>";
        assert!(page(empty).unwrap().next.is_none());
    }
}
