//! The page around the sections, and the pieces that these are made of.

use std::fmt::Write;

use anyhow::{Context, Result};
use loftup_runtime::image::RgbImage;

use super::{About, Section};
use crate::html::escaped;

/// Colors, and a layout for wide and narrow screens.
const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn page(about: &About, sections: &[&dyn Section]) -> Result<String> {
    let mut page = format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>LoftUp demo</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>Dense features, end to end</h1>
<p>Generated scenes, a bundle, linear probes, a video and a short training: everything on this page was computed by one run of <code>loftup demo</code> in {:.0} seconds.</p>
<ul class="facts">
<li>{}, {} threads</li><li>loftup {}</li><li>{} channels, patch {}, bundle of {:.1} MB</li>
</ul>
</header>
<main>
"#,
        about.seconds,
        escaped(&about.machine),
        about.threads,
        escaped(about.version),
        about.dim,
        about.patch,
        about.bundle_bytes as f64 / 1e6
    );
    for section in sections {
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "<section>\n<h2>{}</h2>\n{}\n</section>",
            escaped(section.title()),
            section.body()?
        );
    }
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(page)
}

/// Images per row on a narrow screen.
#[derive(Clone, Copy)]
pub enum Narrow {
    Pairs,
    Triples,
}

/// Images with captions, up to six per row.
pub fn gallery(narrow: Narrow, pictures: &[(String, &RgbImage)]) -> Result<String> {
    let class = match narrow {
        Narrow::Pairs => "gallery pairs",
        Narrow::Triples => "gallery",
    };
    let mut out = format!(r#"<div class="{class}">"#);
    for (caption, picture) in pictures {
        let caption = escaped(caption);
        let _ = write!(
            out,
            r#"<figure><img src="{}" width="{}" height="{}" alt="{caption}"><figcaption>{caption}</figcaption></figure>"#,
            data_uri(picture)?,
            picture.width(),
            picture.height()
        );
    }
    Ok(out + "</div>")
}

/// An image as a data URI.
fn data_uri(picture: &RgbImage) -> Result<String> {
    let mut bytes = Vec::new();
    let side = |n: usize| u32::try_from(n).context("an image is too large");
    let mut encoder =
        png::Encoder::new(&mut bytes, side(picture.width())?, side(picture.height())?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    encoder.write_header()?.write_image_data(picture.data())?;
    Ok(format!("data:image/png;base64,{}", base64(&bytes)))
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .enumerate()
            .fold(0u32, |bits, (i, b)| bits | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= group.len() { digit as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }
}
