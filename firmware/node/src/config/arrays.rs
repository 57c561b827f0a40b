//! Arrays of a fixed length. The TOML deserializer ignores surplus elements; here they are an error.

use serde::{Deserialize, Deserializer, de::Error};

/// Exactly `N` elements.
struct Exact<T, const N: usize>([T; N]);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Exact<T, N> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let list = Vec::<T>::deserialize(d)?;
        let error = |list: Vec<T>| {
            let found = list.len();
            D::Error::custom(format!("invalid length {found}: expected {N} elements"))
        };
        list.try_into().map(Self).map_err(error)
    }
}

/// An array.
pub fn list<'de, D, T, const N: usize>(d: D) -> Result<[T; N], D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Exact::deserialize(d).map(|list| list.0)
}

/// An optional array.
pub fn optional<'de, D, T, const N: usize>(d: D) -> Result<Option<[T; N]>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    list(d).map(Some)
}

/// An optional array of arrays.
pub fn nested<'de, D, T, const N: usize, const M: usize>(
    d: D,
) -> Result<Option<[[T; N]; M]>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let lists: [Exact<T, N>; M] = list(d)?;
    Ok(Some(lists.map(|list| list.0)))
}

/// An optional list of arrays.
pub fn many<'de, D, T, const N: usize>(d: D) -> Result<Option<Vec<[T; N]>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let lists = Vec::<Exact<T, N>>::deserialize(d)?;
    Ok(Some(lists.into_iter().map(|list| list.0).collect()))
}
