//! The schema of a type on the wire: its maximum encoded size and a hash of its
//! layout, both computed at compile time.
//!
//! postcard is not self-describing: two programs whose types differ in one field
//! would silently decode garbage. So every wire type has a hash of the names,
//! order, types and bounds of everything in it. The hash of all messages,
//! [`SCHEMA_HASH`](crate::SCHEMA_HASH), is sent in the hello.
//!
//! postcard's own `Schema` and `MaxSize` ignore the bounds of sequences and have
//! no maximum size for borrowed bytes. Both matter here, because a receiver
//! without a heap must know the bounds in advance.

/// A type of the wire format.
pub trait Schema {
    /// Maximum encoded size, in bytes.
    const MAX_SIZE: usize;
    /// FNV-1a hash of the layout, including nested types.
    const HASH: u64;
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// 64-bit FNV-1a, usable in constants.
#[derive(Debug, Clone, Copy)]
pub struct Fnv(u64);

impl Fnv {
    /// The empty hash.
    #[must_use]
    pub const fn new() -> Self {
        Fnv(FNV_BASIS)
    }

    /// Adds bytes.
    #[must_use]
    pub const fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut i = 0;
        while i < bytes.len() {
            self.0 = (self.0 ^ bytes[i] as u64).wrapping_mul(FNV_PRIME);
            i += 1;
        }
        self
    }

    /// Adds a name and a terminating zero byte, so that `ab` + `c` differs from
    /// `a` + `bc`.
    #[must_use]
    pub const fn name(self, name: &str) -> Self {
        self.bytes(name.as_bytes()).bytes(&[0])
    }

    /// Adds a number: a bound, or the hash of a nested type.
    #[must_use]
    pub const fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// The hash.
    #[must_use]
    pub const fn finish(self) -> u64 {
        self.0
    }
}

impl Default for Fnv {
    fn default() -> Self {
        Self::new()
    }
}

/// Maximum size in bytes of a varint up to `max`: seven bits per byte.
#[must_use]
pub const fn varint_size(max: u64) -> usize {
    let bits = (u64::BITS - max.leading_zeros()) as usize;
    if bits == 0 { 1 } else { bits.div_ceil(7) }
}

pub(crate) const fn max(sizes: &[usize]) -> usize {
    let mut max = 0;
    let mut i = 0;
    while i < sizes.len() {
        if sizes[i] > max {
            max = sizes[i];
        }
        i += 1;
    }
    max
}

macro_rules! primitive {
    ($($type:ty: $size:expr;)*) => {$(
        impl Schema for $type {
            const MAX_SIZE: usize = $size;
            const HASH: u64 = Fnv::new().name(stringify!($type)).finish();
        }
    )*};
}

primitive! {
    bool: 1;
    u8: 1;
    u16: varint_size(u16::MAX as u64);
    u32: varint_size(u32::MAX as u64);
    u64: varint_size(u64::MAX);
    i16: varint_size(u16::MAX as u64);
    f32: 4;
}

impl<T: Schema> Schema for Option<T> {
    const MAX_SIZE: usize = 1 + T::MAX_SIZE;
    const HASH: u64 = Fnv::new().name("option").number(T::HASH).finish();
}

impl<T: Schema, const N: usize> Schema for heapless::Vec<T, N> {
    const MAX_SIZE: usize = varint_size(N as u64) + N * T::MAX_SIZE;
    const HASH: u64 = Fnv::new()
        .name("seq")
        .number(T::HASH)
        .number(N as u64)
        .finish();
}

/// The name of a type in the schema hash: its own, or that given after `as`,
/// which keeps the hash stable when the type is renamed.
macro_rules! schema_name {
    ($name:ident) => {
        stringify!($name)
    };
    ($name:ident $schema:literal) => {
        $schema
    };
}

/// Declares structs of the wire format with serialization and [`Schema`], as in
/// `pub struct Name { .. }` or `pub struct Name as "SchemaName" { .. }`.
macro_rules! wire_struct {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident $(<$life:lifetime>)? $(as $schema:literal)? {
            $( $(#[$fmeta:meta])* pub $field:ident : $type:ty ),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name $(<$life>)? {
            $( $(#[$fmeta])* pub $field: $type ),*
        }

        impl $(<$life>)? $crate::schema::Schema for $name $(<$life>)? {
            const MAX_SIZE: usize = 0 $( + <$type as $crate::schema::Schema>::MAX_SIZE )*;
            const HASH: u64 = $crate::schema::Fnv::new()
                .name("struct")
                .name($crate::schema::schema_name!($name $($schema)?))
                $( .name(stringify!($field)).number(<$type as $crate::schema::Schema>::HASH) )*
                .finish();
        }
    )*};
}

/// Declares enums of the wire format with serialization and [`Schema`]. A variant
/// is a unit, holds one value, or has named fields. postcard writes the variant
/// index first, as a varint of one byte, since no enum has more than 127.
macro_rules! wire_enum {
    ($(
        $(#[$meta:meta])*
        pub enum $name:ident $(<$life:lifetime>)? {
            $(
                $(#[$vmeta:meta])*
                $variant:ident
                    $( ( $(#[$nmeta:meta])* $new:ty ) )?
                    $( { $( $(#[$fmeta:meta])* $field:ident : $type:ty ),* $(,)? } )?
            ),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        pub enum $name $(<$life>)? {
            $(
                $(#[$vmeta])*
                $variant
                    $( ( $(#[$nmeta])* $new ) )?
                    $( { $( $(#[$fmeta])* $field: $type ),* } )?
            ),*
        }

        impl $(<$life>)? $crate::schema::Schema for $name $(<$life>)? {
            const MAX_SIZE: usize = {
                let sizes = [ $(
                    0 $( + <$new as $crate::schema::Schema>::MAX_SIZE )?
                      $( $( + <$type as $crate::schema::Schema>::MAX_SIZE )* )?
                ),* ];
                assert!(sizes.len() <= 127);
                1 + $crate::schema::max(&sizes)
            };
            const HASH: u64 = $crate::schema::Fnv::new()
                .name("enum")
                .name(stringify!($name))
                $(
                    .name(stringify!($variant))
                    $( .number(<$new as $crate::schema::Schema>::HASH) )?
                    $( $( .name(stringify!($field)).number(<$type as $crate::schema::Schema>::HASH) )* )?
                )*
                .finish();
        }
    )*};
}

pub(crate) use {schema_name, wire_enum, wire_struct};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a_of_64_bits() {
        // Published FNV-1a test vectors.
        assert_eq!(Fnv::new().bytes(b"").finish(), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Fnv::new().bytes(b"a").finish(), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Fnv::new().bytes(b"foobar").finish(), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_varint_takes_seven_bits_a_byte() {
        for (max, bytes) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3)] {
            assert_eq!(varint_size(max), bytes, "{max}");
        }
        assert_eq!(varint_size(u64::from(u32::MAX)), 5);
        assert_eq!(varint_size(u64::MAX), 10);
    }

    mod first {
        wire_struct! { pub struct Pose { pub x: u16, pub y: u16 } }
        wire_enum! { pub enum Step { Stay, Go(Pose), Turn { by: i16 } } }
    }
    mod renamed {
        wire_struct! { pub struct Pose { pub x: u16, pub z: u16 } }
        wire_enum! { pub enum Step { Stay, Go(Pose), Turn { by: i16 } } }
    }
    mod retyped {
        wire_struct! { pub struct Pose { pub x: u16, pub y: u32 } }
        wire_enum! { pub enum Step { Stay, Turn { by: i16 }, Go(super::first::Pose) } }
    }

    #[test]
    fn any_change_of_a_layout_changes_its_hash_however_deep() {
        assert_ne!(first::Pose::HASH, renamed::Pose::HASH);
        assert_ne!(first::Pose::HASH, retyped::Pose::HASH);
        assert_ne!(first::Step::HASH, renamed::Step::HASH, "a nested field");
        assert_ne!(first::Step::HASH, retyped::Step::HASH, "order of variants");
        assert_ne!(
            heapless::Vec::<u8, 4>::HASH,
            heapless::Vec::<u8, 5>::HASH,
            "a bound"
        );
        assert_ne!(Option::<u8>::HASH, u8::HASH);
    }

    #[test]
    fn the_largest_size_is_that_of_the_largest_variant() {
        assert_eq!(first::Pose::MAX_SIZE, 6);
        assert_eq!(first::Step::MAX_SIZE, 1 + 6);
    }
}
