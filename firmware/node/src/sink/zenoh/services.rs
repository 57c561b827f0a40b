//! Services of the node.

use std::sync::Arc;

use loftup_wire::command::{Action, Outcome};

use crate::{
    mailbox::Mailbox,
    metrics::Event,
    ros::{
        self, MAX_REQUEST, Service, Settings,
        session::{Request, RosSession, Server},
    },
    sink::{Context, SinkError, wall_ns},
};

/// Maximum number of waiting requests. Older requests are dropped without a response.
pub(super) const MAX_REQUESTS: usize = 8;

/// Declares all services. Their requests go to `requests`.
pub(super) fn declare(
    session: &mut RosSession,
    requests: &Arc<Mailbox<Request>>,
) -> Result<Vec<Server>, String> {
    let declare = |service| {
        let requests = requests.clone();
        session.serve(service, move |request| drop(requests.send(request)))
    };
    Service::ALL.into_iter().map(declare).collect()
}

/// Answers a request and applies its changes.
pub(super) fn answer(
    request: &Request,
    context: &Context<'_>,
    body: &mut Vec<u8>,
) -> Result<(), SinkError> {
    let service = request.service.name();
    let Some(bytes) = request.body() else {
        context.metrics.count(Event::CommandRefused, 1);
        log::warn!("{service}: a request without a body, or of more than {MAX_REQUEST} bytes");
        return Ok(());
    };
    let control = context.control;
    let before = Settings {
        enabled: control.is_running(),
        rate_hz: control.rate_hz(),
    };
    let after = match ros::answer(request.service, &bytes, before, body) {
        Ok(after) => after,
        Err(e) => {
            context.metrics.count(Event::CommandRefused, 1);
            log::warn!("{service}: {e}");
            return Ok(());
        }
    };
    let run = match after.enabled {
        true => Action::Start,
        false => Action::Stop,
    };
    // 0 would be no limit.
    let least = u32::from(after.rate_hz > 0.0);
    let rate = Action::SetRate {
        mhz: ((1000.0 * after.rate_hz).round() as u32).max(least),
    };
    for (changed, action) in [
        (after.enabled != before.enabled, run),
        (after.rate_hz != before.rate_hz, rate),
    ] {
        if changed {
            let event = match control.execute(&action, context.model) {
                Outcome::Done => Event::Command,
                Outcome::Refused(_) => Event::CommandRefused,
            };
            context.metrics.count(event, 1);
        }
    }
    request.reply(body, wall_ns(0, 0)).map_err(SinkError::Other)
}
