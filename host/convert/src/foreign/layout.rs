//! How an output can be read as features.

use std::{fmt, str::FromStr};

use loftup_bundle::{FeatureLayout, Size};
use loftup_import::onnx::Arrangement;

/// Order of the axes in an output that holds features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[1, n, d]`
    Tokens,
    /// `[1, d, n]`
    TokensTransposed,
    /// `[1, d, h, w]`
    Map,
    /// `[1, h, w, d]`
    MapChannelsLast,
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Tokens,
        Self::TokensTransposed,
        Self::Map,
        Self::MapChannelsLast,
    ];

    /// What the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::TokensTransposed => "tokens-transposed",
            Self::Map => "map",
            Self::MapChannelsLast => "map-nhwc",
        }
    }

    /// What puts it in the order of a bundle.
    pub fn arrangement(self) -> Arrangement {
        match self {
            Self::Tokens | Self::Map => Arrangement::Keep,
            Self::TokensTransposed => Arrangement::TokensFirst,
            Self::MapChannelsLast => Arrangement::ChannelsFirst,
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|l| l.name() == s);
        known.ok_or_else(|| format!("expected one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// Numbers of tokens in front of those of the patches in models that are around: none, a class
/// token, class and distillation token (DeiT), registers alone (timm's `reg4_gap`), class token and
/// registers (DINOv2, DINOv3).
const EXTRA_TOKENS: [usize; 5] = [0, 1, 2, 4, 5];

/// One way to read an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub layout: Layout,
    /// Channels.
    pub dim: usize,
    /// Tokens that belong to no patch.
    pub extra: usize,
    /// Rows of the grid.
    pub rows: usize,
    /// Columns of the grid.
    pub columns: usize,
}

impl Reading {
    /// How the manifest describes it, after its arrangement.
    pub fn in_bundle(&self) -> FeatureLayout {
        match self.layout {
            Layout::Map | Layout::MapChannelsLast => FeatureLayout::Map,
            Layout::Tokens | Layout::TokensTransposed => {
                FeatureLayout::Tokens { extra: self.extra }
            }
        }
    }

    /// Shape of the output after its arrangement.
    pub fn shape(&self) -> Vec<usize> {
        match self.in_bundle() {
            FeatureLayout::Map => vec![1, self.dim, self.rows, self.columns],
            FeatureLayout::Tokens { extra } => {
                vec![1, extra + self.rows * self.columns, self.dim]
            }
        }
    }

    /// [`Self::shape`], with the extents that follow from the size of the image left open where
    /// that is not `fixed`.
    pub fn shape_where(&self, fixed: bool) -> Vec<Option<usize>> {
        let is_channels = |axis: usize| match self.in_bundle() {
            FeatureLayout::Map => axis == 1,
            FeatureLayout::Tokens { .. } => axis == 2,
        };
        let shape = self.shape().into_iter().enumerate();
        shape
            .map(|(axis, n)| (fixed || axis == 0 || is_channels(axis)).then_some(n))
            .collect()
    }

    /// The same reading for an image of another size.
    pub fn at(&self, size: Size, patch: usize) -> Self {
        Self {
            rows: size.height / patch,
            columns: size.width / patch,
            ..*self
        }
    }

    /// Ways in which the values can be where this reading does not look for them.
    pub fn misreadings(&self) -> Vec<(&'static str, Strides)> {
        let right = self.strides();
        let exchanged = Strides {
            row: right.column,
            column: right.column * self.rows,
            ..right
        };
        let mut all = vec![(
            "its rows and columns are exchanged; transpose them in the export",
            exchanged,
        )];
        if self.extra > 0 {
            all.push((
                "the tokens that belong to no patch are behind the others; put them in front or drop them in the export",
                Strides { first: 0, ..right },
            ));
        }
        all
    }

    /// Where the values of a cell are.
    pub fn strides(&self) -> Strides {
        let (dim, columns) = (self.dim, self.columns);
        let tokens = self.extra + self.rows * columns;
        match self.layout {
            Layout::Tokens | Layout::MapChannelsLast => Strides {
                first: self.extra * dim,
                row: columns * dim,
                column: dim,
                channel: 1,
            },
            Layout::TokensTransposed | Layout::Map => Strides {
                first: self.extra,
                row: columns,
                column: 1,
                channel: tokens,
            },
        }
    }
}

/// Distances between values of an output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strides {
    pub first: usize,
    pub row: usize,
    pub column: usize,
    pub channel: usize,
}

/// What the user said about the output.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    pub layout: Option<Layout>,
    pub extra: Option<usize>,
}

/// All ways in which an output of this shape can hold features of an image of `size`.
pub(crate) fn readings(shape: &[usize], size: Size, patch: usize, wanted: Wanted) -> Vec<Reading> {
    let (rows, columns) = (size.height / patch, size.width / patch);
    let extra = |tokens: usize| {
        let extra = tokens.checked_sub(rows * columns)?;
        let fits = match wanted.extra {
            Some(n) => extra == n,
            None => EXTRA_TOKENS.contains(&extra),
        };
        fits.then_some(extra)
    };
    let no_extra = wanted.extra.unwrap_or(0) == 0;
    let fits = |layout: Layout| {
        let (dim, extra) = match (layout, shape) {
            (Layout::Tokens, &[1, n, d]) | (Layout::TokensTransposed, &[1, d, n]) => (d, extra(n)?),
            (Layout::Map, &[1, d, h, w]) | (Layout::MapChannelsLast, &[1, h, w, d])
                if (h, w) == (rows, columns) && no_extra =>
            {
                (d, 0)
            }
            _ => return None,
        };
        Some(Reading {
            layout,
            dim,
            extra,
            rows,
            columns,
        })
    };
    let asked = |l: &Layout| wanted.layout.is_none_or(|w| w == *l);
    Layout::ALL
        .into_iter()
        .filter(asked)
        .filter_map(fits)
        .collect()
}

/// Why no reading fits, and what would.
pub(crate) fn no_reading(shape: &[usize], size: Size, patch: usize, wanted: Wanted) -> String {
    let (h, w) = (size.height / patch, size.width / patch);
    let grid = h * w;
    let expected =
        format!("expected a map [1, d, {h}, {w}] or tokens [1, {grid}, d] with a patch of {patch}");
    let mut hints = Vec::new();
    let other = |wanted: Wanted| readings(shape, size, patch, wanted);
    let layouts = other(Wanted {
        layout: None,
        ..wanted
    });
    let extras = other(Wanted {
        extra: None,
        ..wanted
    });
    if !layouts.is_empty() {
        let names: Vec<_> = layouts.iter().map(|r| r.layout.name()).collect();
        hints.push(format!("--layout {} fits", names.join(" or ")));
    } else if let Some(reading) = extras.first() {
        hints.push(format!("--extra-tokens {} fits", reading.extra));
    }
    if hints.is_empty() {
        let patches: Vec<String> = (1..=size.width.min(size.height))
            .filter(|p| {
                *p != patch && size.width.is_multiple_of(*p) && size.height.is_multiple_of(*p)
            })
            .filter(|p| !readings(shape, size, *p, wanted).is_empty())
            .map(|p| format!("--patch {p}"))
            .collect();
        if !patches.is_empty() {
            hints.push(format!("{} fits", patches.join(" or ")));
        }
    }
    match *shape {
        [1, _, a, b] | [1, a, b, _] if (a, b) == (w, h) && h != w => {
            hints.push("its rows and columns are exchanged; transpose them in the export".into());
        }
        [1, a, b] if hints.is_empty() => {
            // The number of channels may be larger than the grid, too.
            let over = [a, b].into_iter().filter(|n| *n > grid).map(|n| n - grid);
            if let Some(extra) = over.min().filter(|n| Some(*n) != wanted.extra && *n <= grid) {
                hints.push(format!(
                    "if {extra} tokens in front belong to no patch, say --extra-tokens {extra}"
                ));
            }
        }
        [1, _] => hints.push(
            "this is one vector for the whole image, as a classifier gives; name an output with --backbone-output, or export the features before the pooling".into(),
        ),
        [1, _, _, _] => {}
        [b, ..] if b != 1 => hints.push("its first axis is not a batch of 1".into()),
        _ => {}
    }
    if hints.is_empty() {
        hints.push("check --patch, or export the features of the backbone alone".into());
    }
    format!("{expected}: {}", hints.join("; "))
}
