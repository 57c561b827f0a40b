use super::*;

const BEFORE: Settings = Settings {
    enabled: true,
    rate_hz: 12.5,
};

/// A request and the answer to it that another encoder has written (`tools/make_ros_fixtures.py`).
macro_rules! exchange {
    ($service:expr, $name:literal) => {
        (
            $service,
            $name,
            &include_bytes!(concat!(
                "../../../tests/data/ros/services/",
                $name,
                "_request.cdr"
            ))[..],
            &include_bytes!(concat!(
                "../../../tests/data/ros/services/",
                $name,
                "_response.cdr"
            ))[..],
        )
    };
}

fn exchanges() -> [(Service, &'static str, &'static [u8], &'static [u8]); 9] {
    [
        exchange!(Service::Enable, "enable"),
        exchange!(Service::ListParameters, "list"),
        exchange!(Service::ListParameters, "list_other"),
        exchange!(Service::GetParameters, "get"),
        exchange!(Service::GetParameterTypes, "types"),
        exchange!(Service::DescribeParameters, "describe"),
        exchange!(Service::SetParameters, "set"),
        exchange!(Service::SetParameters, "set_integer"),
        exchange!(Service::SetParametersAtomically, "atomic"),
    ]
}

#[test]
fn answers_are_those_of_another_encoder() {
    let mut out = vec![3; 50];
    for (service, name, request, response) in exchanges() {
        let after = answer(service, request, BEFORE, &mut out).unwrap();
        assert_eq!(out, response, "{name}");
        let expected = match name {
            "enable" => Settings {
                enabled: false,
                ..BEFORE
            },
            "set" => Settings {
                rate_hz: 7.5,
                ..BEFORE
            },
            "set_integer" => Settings {
                rate_hz: 5.0,
                ..BEFORE
            },
            // With one value out of range, nothing is changed.
            _ => BEFORE,
        };
        assert_eq!(after, expected, "{name}");
    }
}

#[test]
fn requests_that_end_early_or_late_are_errors() {
    let mut out = Vec::new();
    for (service, name, request, _) in exchanges() {
        for length in 0..request.len() {
            let result = answer(service, &request[..length], BEFORE, &mut out);
            assert!(result.is_err(), "{name}: {length} bytes");
        }
        let mut long = request.to_vec();
        long.extend([0; 4]);
        let result = answer(service, &long, BEFORE, &mut out);
        assert!(matches!(result, Err(CdrError::Surplus(4..))), "{name}");
    }
}

#[test]
fn no_changed_bit_gives_a_rate_out_of_range() {
    let mut out = Vec::new();
    for (service, name, request, _) in exchanges() {
        let mut request = request.to_vec();
        for bit in 0..8 * request.len() {
            request[bit / 8] ^= 1 << (bit % 8);
            if let Ok(after) = answer(service, &request, BEFORE, &mut out) {
                assert!((0.0..=MAX_RATE_HZ).contains(&after.rate_hz), "{name}");
            }
            request[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
