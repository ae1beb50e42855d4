//! Docker's flags for the health of a service.

use crate::Failed;
use clap::{Args, ValueEnum};
use kvmlet_image::config::{Health, Test};
use kvmlet_spec::supervision::{HealthCheck, RestartPolicy, Span};

/// How the health of the service is asked for.
#[derive(Args)]
pub(super) struct HealthFlags {
    /// Command that the guest's /bin/sh runs again and again: the service is well if it ends with 0.
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time from the end of one check to the start of the next [default: 30s].
    #[arg(long, value_name = "TIME")]
    health_interval: Option<Span>,
    /// How long a check may take until it is killed and has failed [default: 30s].
    #[arg(long, value_name = "TIME")]
    health_timeout: Option<Span>,
    /// How many failures in a row make the service unhealthy [default: 3].
    #[arg(long, value_name = "N")]
    health_retries: Option<u32>,
    /// Time after the start in which failures do not count, until a check has succeeded [default: 0s].
    #[arg(long, value_name = "TIME")]
    health_start_period: Option<Span>,
    /// In that time: from the end of one check to the start of the next [default: 5s].
    #[arg(long, value_name = "TIME")]
    health_start_interval: Option<Span>,
    /// What is done when the service is unhealthy; `restart` stops it, and --restart has it started again.
    #[arg(long, value_name = "ACTION", default_value = "none")]
    health_on_failure: OnFailure,
    /// No health checks, whatever the image says.
    #[arg(long, conflicts_with = "health_cmd")]
    no_healthcheck: bool,
}

/// What an unhealthy service leads to.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnFailure {
    None,
    Restart,
}

impl HealthFlags {
    /// What they ask for, or else the image, of a service that is started again by this policy.
    pub fn check(
        &self,
        policy: RestartPolicy,
        image: Option<&Health>,
    ) -> Result<Option<HealthCheck>, Failed> {
        if self.no_healthcheck {
            return Ok(None);
        }
        let of_image = image.and_then(of_image);
        let own = self.health_cmd.as_ref();
        let base = match (own, of_image) {
            // The image's times stay, as for docker.
            (Some(command), Some(mut check)) => {
                check.command.clone_from(command);
                check.arguments.clear();
                Some(check)
            }
            (Some(command), None) => Some(HealthCheck::new(command)),
            (None, of_image) => of_image,
        };
        let Some(mut check) = base else {
            return match self.changes_nothing() {
                true => Ok(None),
                false => Err(Failed::new(
                    "there is no health check to change: nothing says what it runs",
                )
                .help("say it with --health-cmd")),
            };
        };
        let spans = [
            (&mut check.interval, self.health_interval),
            (&mut check.timeout, self.health_timeout),
            (&mut check.start_period, self.health_start_period),
            (&mut check.start_interval, self.health_start_interval),
        ];
        for (span, asked) in spans {
            *span = asked.unwrap_or(*span);
        }
        check.retries = self.health_retries.unwrap_or(check.retries);
        check.restart = self.health_on_failure == OnFailure::Restart;
        if check.restart && policy == RestartPolicy::No {
            return Err(
                Failed::new("a service that is unhealthy would be stopped and stay so")
                    .help("say when it is started again, such as --restart on-failure"),
            );
        }
        check.check().map_err(Failed::new)?;
        Ok(Some(check))
    }

    fn changes_nothing(&self) -> bool {
        let spans = [
            self.health_interval,
            self.health_timeout,
            self.health_start_period,
            self.health_start_interval,
        ];
        spans.iter().all(Option::is_none)
            && self.health_retries.is_none()
            && self.health_on_failure == OnFailure::None
    }
}

/// What an image asks for.
fn of_image(health: &Health) -> Option<HealthCheck> {
    let Health::Test {
        test,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    } = health
    else {
        return None;
    };
    let mut check = match test {
        Test::Shell(line) => HealthCheck::new(line),
        Test::Command(words) => HealthCheck::of_program(words.clone()),
    };
    let spans = [
        (&mut check.interval, interval),
        (&mut check.timeout, timeout),
        (&mut check.start_period, start_period),
        (&mut check.start_interval, start_interval),
    ];
    for (span, said) in spans {
        *span = said.map_or(*span, Span::from);
    }
    check.retries = retries.unwrap_or(check.retries);
    Some(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use kvmlet_image::config::ImageConfig;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        health: HealthFlags,
    }

    fn check(words: &str, policy: RestartPolicy) -> Result<Option<HealthCheck>, String> {
        let words = std::iter::once("run").chain(words.split(' ').filter(|word| !word.is_empty()));
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.health
            .check(policy, None)
            .map_err(|failed| failed.to_string())
    }

    #[test]
    fn they_mean_what_docker_means() {
        let plain = |words| check(words, RestartPolicy::No);
        assert_eq!(plain(""), Ok(None));
        assert_eq!(plain("--no-healthcheck"), Ok(None));
        assert_eq!(
            plain("--health-cmd true"),
            Ok(Some(HealthCheck::new("true")))
        );
        let words = "--health-cmd x --health-interval 1m30s --health-timeout 500ms --health-retries 7 \
                     --health-start-period 1h --health-start-interval 2s --health-on-failure restart";
        let check = check(words, RestartPolicy::Always).unwrap().unwrap();
        let text = serde_json::to_string(&check).unwrap();
        assert_eq!(
            text,
            r#"{"command":"x","interval":"1m30s","timeout":"500ms","retries":7,"start_period":"1h0m0s","start_interval":"2s","restart":true}"#
        );
    }

    #[test]
    fn an_images_check_is_changed_part_by_part() {
        let config = |health: &str| {
            let json = format!(
                r#"{{"architecture": "amd64", "os": "linux", "rootfs": {{"type": "layers", "diff_ids": []}}, "config": {{"Healthcheck": {health}}}}}"#
            );
            ImageConfig::parse(json.as_bytes()).unwrap().health
        };
        let check = |words: &str, health: &str| {
            let words = std::iter::once("run").chain(words.split_whitespace());
            let line = Line::try_parse_from(words).unwrap();
            line.health
                .check(RestartPolicy::No, config(health).as_ref())
                .unwrap()
        };
        let program = r#"{"Test": ["CMD", "/app", "check"], "Interval": 5000000000, "Retries": 7}"#;
        let found = check("", program).unwrap();
        assert_eq!(
            (found.arguments.join(" "), found.retries),
            ("/app check".into(), 7)
        );
        assert_eq!(
            (found.interval, found.timeout),
            (Span::seconds(5), Span::seconds(30))
        );
        let found = check("--health-retries 2", program).unwrap();
        assert_eq!((found.interval, found.retries), (Span::seconds(5), 2));
        let found = check("--health-cmd true", program).unwrap();
        assert_eq!(
            (&*found.command, found.arguments.len(), found.retries),
            ("true", 0, 7)
        );
        assert_eq!(check("--no-healthcheck", program), None);
        let shell = check("", r#"{"Test": ["CMD-SHELL", "exit 0"]}"#).unwrap();
        assert_eq!(shell, HealthCheck::new("exit 0"));
        assert_eq!(check("", r#"{"Test": ["NONE"]}"#), None);
    }

    #[test]
    fn what_could_tell_nothing_is_refused() {
        for (words, expected) in [
            ("--health-cmd x --no-healthcheck", "cannot be used with"),
            ("--health-interval 1s", "--health-cmd"),
            ("--health-cmd x --health-interval 0", "too short: 1ms"),
            ("--health-cmd x --health-timeout 5", "not a span of time"),
            ("--health-cmd x --health-retries 0", "one attempt at least"),
            ("--health-cmd x --health-on-failure kill", "none, restart"),
            (
                "--health-cmd x --health-on-failure restart",
                "--restart on-failure",
            ),
        ] {
            let error = check(words, RestartPolicy::No).unwrap_err();
            assert!(error.contains(expected), "{words}: {error}");
        }
    }
}
