//! The tokenizer against the original.

use loftup_words::Tokenizer;

/// By OpenAI's tokenizer.
const GOLDEN: [(&str, &[u32]); 15] = [
    ("a photo of a cat.", &[320, 1125, 539, 320, 2368, 269]),
    (
        "a bad photo of a traffic light.",
        &[320, 2103, 1125, 539, 320, 3399, 1395, 269],
    ),
    (
        "itap of the pedestrian.",
        &[529, 2728, 539, 518, 18256, 269],
    ),
    (
        "there is a bicyclist in the scene.",
        &[997, 533, 320, 9247, 1503, 545, 530, 518, 3562, 269],
    ),
    ("Hi there", &[1883, 997]),
    ("", &[]),
    (
        "  Ünïcode &amp; naïve café  ",
        &[6522, 77, 35689, 3217, 261, 1097, 35689, 563, 15304],
    ),
    ("don't", &[847, 713]),
    (
        "3 cups, 12 spoons!",
        &[274, 11463, 267, 272, 273, 29661, 256],
    ),
    (
        "A person riding a motorcycle",
        &[320, 2533, 6765, 320, 10297],
    ),
    (
        "graffiti of the potted plant.",
        &[11676, 539, 518, 48581, 3912, 269],
    ),
    ("a origami sky.", &[320, 31832, 2390, 269]),
    ("hello_world", &[3306, 318, 1002]),
    ("日本語 robot", &[39121, 44353, 34002, 508, 8797]),
    ("😀", &[7334]),
];

#[test]
fn tokens_are_those_of_the_original() {
    let tokenizer = Tokenizer::clip();
    assert_eq!((tokenizer.start(), tokenizer.end()), (49406, 49407));
    for (text, expected) in GOLDEN {
        let ids = tokenizer.encode(text);
        assert_eq!(ids[0], tokenizer.start(), "{text:?}");
        assert_eq!(ids[ids.len() - 1], tokenizer.end(), "{text:?}");
        assert_eq!(ids[1..ids.len() - 1], *expected, "{text:?}");
    }
}

#[test]
fn a_text_with_special_tokens_and_controls_is_read_as_the_original_does() {
    let tokenizer = Tokenizer::clip();
    let of = |text: &str| tokenizer.encode(text);
    assert_eq!(of("A  CAT\n"), of("a cat"));
    assert_eq!(of("&amp;amp;"), of("&"));
    assert_eq!(of("don\u{2019}t \u{7}\u{201c}x\u{201d}"), of("don't \"x\""));
    assert_eq!(of("a<|endoftext|>b")[2], tokenizer.end());
    assert_eq!(of("12"), of("1 2"));
    assert_ne!(of("don't"), of("dont"));
}
