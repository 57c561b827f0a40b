use super::*;
use crate::status::guard;

/// A struct, and what a later version of it may have.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Debug)]
struct Old {
    size: usize,
    first: u64,
}

#[repr(C)]
#[derive(Clone, Copy, PartialEq, Debug)]
struct New {
    size: usize,
    first: u64,
    second: u64,
}

// SAFETY: `repr(C)`, the size is first, and zeros are numbers.
unsafe impl Growing for Old {
    const NAME: &'static str = "old";
}

// SAFETY: as above.
unsafe impl Growing for New {
    const NAME: &'static str = "new";
}

const OLD: usize = size_of::<Old>();
const NEW: usize = size_of::<New>();

#[test]
fn options_of_an_older_caller_have_defaults_for_what_is_new() {
    let old = Old {
        size: OLD,
        first: 7,
    };
    // SAFETY: it has as many bytes as its size says.
    let read = unsafe { options(ptr::from_ref(&old).cast::<New>()) }.unwrap();
    assert_eq!((read.first, read.second), (7, 0));
    // SAFETY: NULL is allowed.
    let read = unsafe { options(ptr::null::<New>()) }.unwrap();
    assert_eq!((read.first, read.second), (0, 0));
}

#[test]
fn unknown_options_of_a_newer_caller_are_refused_unless_they_are_0() {
    let mut new = New {
        size: NEW,
        first: 7,
        second: 0,
    };
    let read = |new: &New| {
        // SAFETY: it has as many bytes as its size says.
        unsafe { options(ptr::from_ref(new).cast::<Old>()) }
    };
    assert_eq!(read(&new).unwrap().first, 7);
    new.second = 1;
    assert!(read(&new).is_err());
}

#[test]
fn results_fill_what_the_caller_has_and_keep_its_size() {
    let mut both = [
        Old {
            size: OLD,
            first: 0,
        },
        Old { size: 5, first: 5 },
    ];
    let value = New {
        size: NEW,
        first: 7,
        second: 8,
    };
    // SAFETY: only as many bytes as the size says are written.
    unsafe { results(both.as_mut_ptr().cast::<New>(), value) }.unwrap();
    assert_eq!(
        both,
        [
            Old {
                size: OLD,
                first: 7
            },
            Old { size: 5, first: 5 }
        ]
    );
    let mut new = New { size: NEW, ..value };
    new.second = 3;
    // SAFETY: as above.
    unsafe { results(ptr::from_mut(&mut new).cast::<Old>(), both[0]) }.unwrap();
    assert_eq!((new.size, new.second), (NEW, 3));
}

#[test]
fn sizes_that_were_never_set_are_errors() {
    for size in [0, 1, size_of::<usize>() - 1, MOST + 1, usize::MAX] {
        let mut old = Old { size, first: 0 };
        // SAFETY: wrong sizes are refused before anything else is read or written.
        unsafe {
            assert!(options(&raw const old).is_err(), "{size}");
            assert!(
                results(&raw mut old, Old { size: 0, first: 1 }).is_err(),
                "{size}"
            );
        }
        assert_eq!(old.first, 0);
    }
    let value = Old {
        size: OLD,
        first: 0,
    };
    // SAFETY: NULL is refused.
    let refused = unsafe { results(ptr::null_mut(), value) };
    assert!(refused.is_err());
}

#[test]
fn buffers_are_checked() {
    let mut floats = [0f32; 4];
    let pointer = floats.as_mut_ptr();
    // SAFETY: at most four floats are asked for, and the pointers that are none are refused.
    unsafe {
        assert_eq!(output((pointer, 4), Some(3), "out").unwrap().len(), 3);
        assert!(output((pointer, 4), Some(5), "out").is_err());
        assert!(output((pointer, 4), None, "out").is_err());
        assert!(output((pointer, usize::MAX), Some(1), "out").is_err());
        assert!(output((ptr::null_mut::<f32>(), 4), Some(1), "out").is_err());
        let crooked = pointer.cast::<u8>().add(1).cast::<f32>();
        assert!(output((crooked, 2), Some(1), "out").is_err());
        assert!(input(crooked, 1, "in").is_err());
        assert!(input(ptr::null::<f32>(), 1, "in").is_err());
        assert!(input(ptr::null::<f32>(), 0, "in").unwrap().is_empty());
        assert_eq!(input(pointer, 4, "in").unwrap(), [0.0; 4]);
    }
}

#[test]
fn a_place_for_a_handle_is_checked_first_and_is_null_after_an_error() {
    let mut place = ptr::dangling_mut::<u32>();
    // SAFETY: the place is one, or NULL.
    unsafe {
        assert!(make(ptr::null_mut(), "it", || -> Result<u32> { unreachable!() }).is_err());
        assert!(make(&raw mut place, "it", || Err(Error::argument("no"))).is_err());
        assert!(place.is_null());
        let status = guard(|| make(&raw mut place, "it", || panic!("no")));
        assert_eq!(status, loftup_status::Internal);
        assert!(place.is_null());
        make(&raw mut place, "it", || Ok(5)).unwrap();
        assert_eq!(*place, 5);
        free(place);
        free(ptr::null_mut::<u32>());
    }
}

#[test]
fn text_is_cut_between_characters() {
    let mut field = [1 as c_char; 6];
    for (text, expected) in [
        ("", ""),
        ("abcde", "abcde"),
        ("abcdef", "abcde"),
        ("abcdé", "abcd"),
    ] {
        copy_text(text, &mut field);
        // SAFETY: the field ends with a zero.
        let found = unsafe { CStr::from_ptr(field.as_ptr()) };
        assert_eq!(found.to_str().unwrap(), expected);
    }
}
