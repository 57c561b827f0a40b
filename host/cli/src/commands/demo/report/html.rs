//! The page around the sections, and the pieces that these are made of.

use anyhow::{Context, Result};
use data_encoding::BASE64;
use loftup_runtime::image::RgbImage;
use maud::{Markup, html};

use super::{About, Section};

/// Colors, and a layout for wide and narrow screens.
const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn page(about: &About, sections: &[&dyn Section]) -> Result<String> {
    let bodies = sections
        .iter()
        .map(|section| Ok((section.title(), section.body()?)))
        .collect::<Result<Vec<_>>>()?;
    let seconds = format!("{:.0}", about.seconds);
    let megabytes = format!("{:.1}", about.bundle_bytes as f64 / 1e6);
    let body = html! {
        header {
            h1 { "Dense features, end to end" }
            p {
                "Generated scenes, a bundle, linear probes, a video, tracking, clicks, depth and a \
                 short training: \
                 everything on this page was computed by one run of "
                code { "loftup demo" } " in " (seconds) " seconds."
            }
            ul class="facts" {
                li { (about.machine) ", " (about.threads) " threads" }
                li { "loftup " (about.version) }
                li {
                    (about.dim) " channels, patch " (about.patch) ", bundle of "
                    (megabytes) " MB"
                }
            }
        }
        main {
            @for (title, body) in &bodies {
                section { h2 { (title) } (body) }
            }
        }
    };
    Ok(crate::html::page("LoftUp demo", STYLE, &body))
}

/// Images per row on a narrow screen.
#[derive(Clone, Copy)]
pub enum Narrow {
    Pairs,
    Triples,
}

/// Images with captions, up to six per row.
pub fn gallery(narrow: Narrow, images: &[(String, &RgbImage)]) -> Result<Markup> {
    let class = match narrow {
        Narrow::Pairs => "gallery pairs",
        Narrow::Triples => "gallery",
    };
    let figures = images
        .iter()
        .map(|(caption, image)| Ok((caption, image, data_uri(image)?)))
        .collect::<Result<Vec<_>>>()?;
    Ok(html! {
        div class=(class) {
            @for (caption, image, uri) in &figures {
                figure {
                    img src=(uri) width=(image.width()) height=(image.height()) alt=(caption);
                    figcaption { (caption) }
                }
            }
        }
    })
}

/// An image as a data URI.
fn data_uri(image: &RgbImage) -> Result<String> {
    let mut bytes = Vec::new();
    let side = |n: usize| u32::try_from(n).context("an image is too large");
    let mut encoder = png::Encoder::new(&mut bytes, side(image.width())?, side(image.height())?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    encoder.write_header()?.write_image_data(image.data())?;
    Ok(format!("data:image/png;base64,{}", BASE64.encode(&bytes)))
}
