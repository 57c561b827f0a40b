use super::*;

/// The interpreter's error for an invalid pickle.
fn problem(pickle: &[u8]) -> Problem {
    let started = std::time::Instant::now();
    let problem = Pickle::parse(pickle).expect_err("this pickle must be rejected");
    assert!(
        started.elapsed().as_secs() < 20,
        "took {:?}",
        started.elapsed()
    );
    problem
}

fn refused(pickle: &[u8]) -> String {
    match problem(pickle) {
        Problem::Refused { global, .. } => global,
        other => panic!("{other:?}"),
    }
}

fn damaged(pickle: &[u8]) -> String {
    match problem(pickle) {
        Problem::Damaged(what) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_way_to_name_a_function_gets_past_the_list() {
    let cases: [(&[u8], &str); 10] = [
        (b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.", "os.system"),
        (b"cposix\nsystem\n(X\x02\0\0\0idtR.", "posix.system"),
        (
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
            "os.system",
        ),
        (b"(X\x02\0\0\0idios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nX\x02\0\0\0ido.", "os.system"),
        (
            b"\x80\x02cbuiltins\neval\nX\x011\0\0\0\x85R.",
            "builtins.eval",
        ),
        (
            b"\x80\x02c__builtin__\n__import__\n.",
            "__builtin__.__import__",
        ),
        (b"\x80\x02ctorch.hub\nload\n)\x81.", "torch.hub.load"),
        // Named by a string that was memoized much earlier.
        (
            b"\x80\x04\x8c\x04exec\x94\x8c\x08builtins\x94h\x01h\x00\x93.",
            "builtins.exec",
        ),
        (b"\x80\x02\x82\x01.", "a class by extension code"),
    ];
    for (pickle, expected) in cases {
        assert_eq!(refused(pickle), expected);
    }
}

#[test]
fn a_refused_name_is_printed_on_one_short_line() {
    let name = "x".repeat(100_000);
    let global = refused(
        format!("\x02c\u{1b}[31m\r\n{name}\n.")
            .replace('\x02', "")
            .as_bytes(),
    );
    assert!(
        global.starts_with("\\u{1b}[31m\\r.xxx") && global.len() < 120,
        "{global}"
    );
}

#[test]
fn a_refused_name_that_is_never_used_is_refused_all_the_same() {
    assert_eq!(refused(b"\x80\x02cos\nsystem\n0N."), "os.system");
}

#[test]
fn lengths_beyond_the_pickle_are_damage_and_allocate_nothing() {
    for pickle in [
        &b"X\xff\xff\xff\xffa."[..],
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"B\xff\xff\xff\xff.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x8b\xff\xff\xff\xff.",
        b"T\xff\xff\xff\xff.",
        b"Nr\xff\xff\xff\xff.",
        b"Nj\xff\xff\xff\xff.",
    ] {
        println!("{}", damaged(pickle));
    }
}

#[test]
fn a_stack_that_underflows_or_is_misused_is_damage() {
    for pickle in [
        &b"."[..],
        b"",
        b"t.",
        b"\x87.",
        b"NN\x87.",
        b"N(\x85.",
        b"(.",
        b"0.",
        b"(1t.",
        b"}(Nu.",
        b"Na.",
        b"]NNs.",
        b"NR.",
        b"N)R.",
        b"})b0}b.",
        b"Nb.",
        b"NQ.",
        b")Q.",
        b"KaKb\x93.",
        b"\xff.",
        b"\x80\x09.",
        b"cos",
        b"cos\nsystem",
        b"c\xff\n\xff\n.",
        b"X\x01\0\0\0\xff.",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(NK\0))tR.",
        b"ctorch._tensor\n_rebuild_from_type_v2\nctorch._tensor\n_rebuild_from_type_v2\nN)\x87R.",
    ] {
        println!("{}", damaged(pickle));
    }
}

#[test]
fn endless_stacks_and_marks_end() {
    damaged(&vec![b'('; 10 << 20]);
    damaged(&vec![b'N'; 10 << 20]);
    damaged(&vec![b']'; 10 << 20]);
    let pushed_and_popped: Vec<u8> = b"]0".repeat(5 << 20);
    assert!(damaged(&pushed_and_popped).contains("more objects"));
}

#[test]
fn nesting_costs_no_recursion() {
    // A million nested lists, a million nested tuples, and a list that contains itself.
    let lists = [vec![b']'; 1_000_000], vec![b'a'; 999_999], b".".to_vec()].concat();
    let pickle = Pickle::parse(&lists).unwrap();
    assert!(matches!(pickle.node(pickle.root()), Some(Node::Sequence(items)) if items.len() == 1));
    let tuples = [&b"N"[..], &vec![0x85; 1_000_000], b"."].concat();
    let pickle = Pickle::parse(&tuples).unwrap();
    assert!(matches!(pickle.node(pickle.root()), Some(Node::Sequence(items)) if items.len() == 1));
    let pickle = Pickle::parse(b"]q\0h\0a.").unwrap();
    let Some(Node::Sequence(items)) = pickle.node(pickle.root()) else {
        panic!()
    };
    assert_eq!(items[..], [pickle.root()]);
}

#[test]
fn plain_values_come_out_as_python_has_them() {
    let pickle = b"\x80\x02(NI01\nI00\n\x88\x89K\x07M\x01\x02J\xfe\xff\xff\xff\x8a\x00\x8a\x01\xff\
        \x8a\x02\x00\x01\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01I-12\nG\x3f\xf0\0\0\0\0\0\0\
        X\x02\0\0\0\xc3\xa4U\x01at.";
    let pickle = Pickle::parse(pickle).unwrap();
    let Some(Node::Sequence(items)) = pickle.node(pickle.root()) else {
        panic!()
    };
    use Value::{Bool, Ignored, Int, Str};
    let expected = [
        Value::None,
        Bool(true),
        Bool(false),
        Bool(true),
        Bool(false),
        Int(7),
        Int(0x201),
        Int(-2),
        Int(0),
        Int(-1),
        Int(256),
        Ignored,
        Int(-12),
        Ignored,
        Str("ä"),
        Str("a"),
    ];
    assert_eq!(items[..], expected);
}

#[test]
fn marks_popping_and_memo_behave_as_in_python() {
    // POP removes a MARK, POP_MARK everything above it; DUP and the memo share the object.
    let pickle = Pickle::parse(b"(N(0(K\x01K\x021]\x94K\x05a2h\0t.").unwrap();
    let Some(Node::Sequence(items)) = pickle.node(pickle.root()) else {
        panic!()
    };
    let [Value::None, list, again, memoized] = items[..] else {
        panic!("{items:?}")
    };
    assert_eq!((list, list), (again, memoized));
    let Some(Node::Sequence(items)) = pickle.node(list) else {
        panic!()
    };
    assert_eq!(items[..], [Value::Int(5)]);
}

#[test]
fn tensors_that_share_a_long_shape_without_end_are_refused() {
    let mut pickle = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\0".to_vec();
    pickle.extend(
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQq\x01",
    );
    pickle.extend(b"(");
    pickle.extend(b"K\x01".repeat(32));
    pickle.extend(b"tq\x02(h\x01K\0h\x02h\x02\x89Ntq\x03");
    let of = |tensors: usize| {
        let mut pickle = pickle.clone();
        pickle.extend(b"h\0h\x03R0".repeat(tensors));
        pickle.extend(b"N.");
        pickle
    };
    // Six bytes each, which describe 64 numbers.
    Pickle::parse(&of(2)).unwrap();
    let what = damaged(&of(1000));
    assert!(what.contains("share their shapes"), "{what}");
}
