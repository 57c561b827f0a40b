//! Possible layouts of an output.

use std::{fmt, str::FromStr};

use loftup_bundle::{FeatureLayout, Size};
use loftup_import::onnx::Arrangement;

/// Layout of a feature output.
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

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::TokensTransposed => "tokens-transposed",
            Self::Map => "map",
            Self::MapChannelsLast => "map-nhwc",
        }
    }

    /// The conversion to the layout of a bundle.
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

/// Numbers of tokens before the patch tokens in common models: none, a class token, class and
/// distillation token (DeiT), four registers (timm's `reg4_gap`), class token and registers (DINOv2,
/// DINOv3).
const EXTRA_TOKENS: [usize; 5] = [0, 1, 2, 4, 5];

/// A possible layout of an output, with its dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub layout: Layout,
    /// Channels.
    pub dim: usize,
    /// Tokens before the patch tokens.
    pub extra: usize,
    /// Rows of the grid.
    pub rows: usize,
    /// Columns of the grid.
    pub columns: usize,
}

impl Reading {
    /// The layout in the bundle, after the conversion.
    pub fn in_bundle(&self) -> FeatureLayout {
        match self.layout {
            Layout::Map | Layout::MapChannelsLast => FeatureLayout::Map,
            Layout::Tokens | Layout::TokensTransposed => {
                FeatureLayout::Tokens { extra: self.extra }
            }
        }
    }

    /// Shape of the output after the conversion.
    pub fn shape(&self) -> Vec<usize> {
        match self.in_bundle() {
            FeatureLayout::Map => vec![1, self.dim, self.rows, self.columns],
            FeatureLayout::Tokens { extra } => {
                vec![1, extra + self.rows * self.columns, self.dim]
            }
        }
    }

    /// [`Self::shape`]; unless `fixed`, the axes that depend on the image size are dynamic.
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

    /// Adapts the reading to an image of another size.
    pub fn at(&self, size: Size, patch: usize) -> Self {
        Self {
            rows: size.height / patch,
            columns: size.width / patch,
            ..*self
        }
    }

    /// Common mistakes in exports of this layout, with the strides they result in.
    pub fn misreadings(&self) -> Vec<(&'static str, Strides)> {
        let right = self.strides();
        let exchanged = Strides {
            row: right.column,
            column: right.column * self.rows,
            ..right
        };
        let mut all = vec![(
            "rows and columns are swapped; transpose them in the export",
            exchanged,
        )];
        if self.extra > 0 {
            all.push((
                "the extra tokens come after the patch tokens; move them to the front or drop them in the export",
                Strides { first: 0, ..right },
            ));
        }
        all
    }

    /// Strides of the output.
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

/// Strides between the values of an output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strides {
    pub first: usize,
    pub row: usize,
    pub column: usize,
    pub channel: usize,
}

/// Options of the user.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    pub layout: Option<Layout>,
    pub extra: Option<usize>,
}

/// All layouts in which an output of this shape can contain the features of an image of `size`.
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
    let allowed = |l: &Layout| wanted.layout.is_none_or(|w| w == *l);
    Layout::ALL
        .into_iter()
        .filter(allowed)
        .filter_map(fits)
        .collect()
}

/// Explains why no layout matches, and what would.
pub(crate) fn no_reading(shape: &[usize], size: Size, patch: usize, wanted: Wanted) -> String {
    let (h, w) = (size.height / patch, size.width / patch);
    let grid = h * w;
    let expected = format!(
        "expected a map [1, d, {h}, {w}] or tokens [1, {grid}, d] for a patch size of {patch}"
    );
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
            hints.push("rows and columns are swapped; transpose them in the export".into());
        }
        [1, a, b] if hints.is_empty() => {
            // The number of channels may also be larger than the grid.
            let over = [a, b].into_iter().filter(|n| *n > grid).map(|n| n - grid);
            if let Some(extra) = over.min().filter(|n| Some(*n) != wanted.extra && *n <= grid) {
                hints.push(format!(
                    "if {extra} tokens come before the patch tokens, give --extra-tokens {extra}"
                ));
            }
        }
        [1, _] => hints.push(
            "this is a single vector for the whole image, like a classifier output; choose an output with --backbone-output, or export the features before pooling".into(),
        ),
        [1, _, _, _] => {}
        [b, ..] if b != 1 => hints.push("the first axis is not a batch of 1".into()),
        _ => {}
    }
    if hints.is_empty() {
        hints.push("check --patch, or export only the features of the backbone".into());
    }
    format!("{expected}: {}", hints.join("; "))
}
