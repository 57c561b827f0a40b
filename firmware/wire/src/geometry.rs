//! Rectangles and points in pixels of the camera image.

use crate::schema::wire_struct;

wire_struct! {
    /// A rectangle in pixels of the camera image.
    #[derive(Copy, Eq, Default)]
    pub struct Rect {
        /// Left edge.
        pub x: u16,
        /// Top edge.
        pub y: u16,
        /// Width.
        pub width: u16,
        /// Height.
        pub height: u16,
    }

    /// A pixel of the camera image.
    #[derive(Copy, Eq, Default)]
    pub struct Point {
        /// Column.
        pub x: u16,
        /// Row.
        pub y: u16,
    }
}
