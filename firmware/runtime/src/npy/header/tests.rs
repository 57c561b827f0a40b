use super::*;

fn fields(dtype: &str, fortran: bool, shape: &[usize]) -> Fields {
    Fields {
        dtype: dtype.to_owned(),
        fortran,
        shape: shape.to_vec(),
    }
}

#[test]
fn dictionaries_as_python_may_write_them_are_read() {
    for (text, expected) in [
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n",
            fields("<f4", false, &[3, 4]),
        ),
        (
            "{'shape':(5,),\"descr\":\"|u1\",'fortran_order':True}",
            fields("|u1", true, &[5]),
        ),
        (
            "{'descr': '<f8', 'fortran_order': False, 'shape': (), }",
            fields("<f8", false, &[]),
        ),
        (
            "{'descr': '<f2', 'fortran_order': False, 'shape': (2L, 3L), }",
            fields("<f2", false, &[2, 3]),
        ),
        (
            "{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,), }",
            fields("[('x', '<f4')", false, &[1]),
        ),
    ] {
        assert_eq!(Fields::parse(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn damaged_dictionaries_are_refused_with_a_reason() {
    for (text, reason) in [
        ("", "expected '{'"),
        ("{'descr': '<f4'", "expected '}'"),
        (
            "{'descr': '<f4', 'shape': (1,), }",
            "key 'fortran_order' is missing",
        ),
        (
            "{'fortran_order': False, 'shape': (1,), }",
            "key 'descr' is missing",
        ),
        (
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
            "True or False",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
            "expected a length",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1 2)}",
            "expected ')'",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "expected a length",
        ),
        ("{'descr': '<f4', 'descr': '<f4', }", "duplicate key"),
        ("{'size': 3}", "unknown key"),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x",
            "text after",
        ),
        ("{'descr", "expected '\\''"),
    ] {
        let error = Fields::parse(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let many = format!("{{'shape': ({})}}", "1, ".repeat(65));
    assert!(Fields::parse(&many).unwrap_err().contains("64 axes"));
}

#[test]
fn a_header_written_is_read_back() {
    for shape in [&[][..], &[7], &[3, 4], &[1, 384, 448, 448], &[0, 5]] {
        let bytes = of("<f4", shape);
        assert_eq!(bytes.len() % 64, 0);
        let header = Header::read(&mut bytes.as_slice(), Path::new("x")).unwrap();
        assert_eq!(header.shape, shape);
        assert_eq!(header.element, Element::F32);
        assert!(!header.fortran);
        assert_eq!(header.length, bytes.len() as u64);
    }
}
