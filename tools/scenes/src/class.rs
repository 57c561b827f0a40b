//! The classes of a scene.

/// Names of the classes, by index.
pub const CLASSES: [&str; 11] = [
    "sky", "wall", "floor", "path", "box", "ball", "pole", "cone", "star", "ring", "bush",
];

/// The first class of objects that stand in the scene; those before it surround them.
pub const OBJECTS: u8 = Class::Box as u8;

/// A color for each class, for visualization.
pub const PALETTE: [[u8; 3]; 11] = [
    [135, 190, 235],
    [150, 110, 90],
    [190, 185, 175],
    [90, 90, 105],
    [230, 120, 40],
    [215, 50, 70],
    [250, 215, 60],
    [150, 70, 180],
    [245, 245, 120],
    [60, 190, 190],
    [70, 150, 60],
];

/// A class; its discriminant is the index into [`CLASSES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    Sky,
    Wall,
    Floor,
    Path,
    Box,
    Ball,
    Pole,
    Cone,
    Star,
    Ring,
    Bush,
}

impl Class {
    pub const ALL: [Class; 11] = [
        Class::Sky,
        Class::Wall,
        Class::Floor,
        Class::Path,
        Class::Box,
        Class::Ball,
        Class::Pole,
        Class::Cone,
        Class::Star,
        Class::Ring,
        Class::Bush,
    ];
}
