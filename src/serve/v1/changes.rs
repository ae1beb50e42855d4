//! What of a VM can be changed while it runs, and how it is measured.

use super::call::Call;
use super::limits::{BalloonVm, LimitVm, Limited as Device, RateSpec};
use super::problem::Problem;
use super::route::OPEN_METRICS;
use super::turns::ask;
use crate::http::Answer;
use kvmlet_control::{Limited, Order};
use kvmlet_spec::{Rate, RateLimit};

type Done = Result<Answer, Problem>;

pub fn metrics(call: &Call) -> Done {
    let (instance, view) = call.look()?;
    let text = ask(&instance, &view)?.control.metrics()?;
    Ok(Answer::told(text).of_kind(OPEN_METRICS))
}

pub fn limit(call: &Call) -> Done {
    change(call, limit_order(call)?)
}

/// What is to be limited, and how.
pub fn limit_order(call: &Call) -> Result<Order, Problem> {
    let wanted: LimitVm = call.read()?;
    let place = wanted.index;
    let device = match wanted.device {
        Device::Disk => Limited::Disk(place),
        Device::Receive => Limited::Receive(place),
        Device::Transmit => Limited::Transmit(place),
    };
    let rate = |name: &str, rate: Option<RateSpec>| rate.map(|it| it.rate(name)).transpose();
    let limit = RateLimit {
        bandwidth: rate("bandwidth", wanted.bandwidth)?,
        operations: rate("operations", wanted.operations)?,
    };
    Ok(Order::Limit { device, limit })
}

pub fn balloon(call: &Call) -> Done {
    change(call, balloon_order(call)?)
}

/// How much memory is to be given back.
pub fn balloon_order(call: &Call) -> Result<Order, Problem> {
    let BalloonVm { mib } = call.read()?;
    Ok(Order::Balloon { mib })
}

fn change(call: &Call, order: Order) -> Done {
    let (instance, view) = call.look()?;
    ask(&instance, &view)?.control.change(order)?;
    Ok(Answer::done())
}

impl RateSpec {
    fn rate(self, name: &str) -> Result<Rate, Problem> {
        if self.burst == Some(0) {
            let detail = "nothing would ever pass";
            return Err(Problem::in_field(format!("{name}.burst"), detail));
        }
        let rate = Rate::per_second(self.per_second);
        let rate = rate
            .map_err(|error| Problem::in_field(format!("{name}.per_second"), error.to_string()))?;
        let rate = self.burst.map_or(rate, |burst| rate.burst(burst));
        Ok(rate.once(self.once))
    }
}
