//! The page of a density benchmark.

use super::chart::{class, short};
use super::{Page, commands, escape, facts, growth, items, picture, presence};
use crate::density::{Crowd, Density};
use std::fmt::Write;

/// The page, complete: style and pictures are in it.
pub fn density(result: &Density) -> String {
    let all: Vec<&Crowd> = result.contestants.iter().collect();
    let lead = format!(
        "One service many times at once, as processes, in containers and in microVMs, on one machine. kvmlet {}, {} starts \
         at a time.",
        result.kvmlet, result.parallel
    );
    let mut page = Page::new("What an instance keeps", &lead, &result.warnings);
    page.section("Memory of each instance", &memory(&all));
    page.section("From the first instance to the last", &kept(&all));
    page.section("Starts per second", &rates(&all));
    page.section("Figures", &figures(&all));
    page.section("Not measured, and where each stopped", &missing(&all));
    page.section("How it was measured", &method(result, &all));
    page.end()
}

fn memory(all: &[&Crowd]) -> String {
    let text = "Proportional set size, with as many instances as the number behind the dot says. Guest RAM is what the \
        guest has touched, its own what of that is in no file; private is the launcher's and, in containers, the service's; pages of programs and libraries are \
        shared by all instances.";
    picture(text, growth::bars(all))
}

fn kept(all: &[&Crowd]) -> String {
    let text = "What the host's available memory fell by for each instance: with what the kernel keeps for it, which is in \
        no process. Whatever else runs on the host shows in it, most of all with few instances.";
    let what = "Memory of the host for each instance";
    picture(
        text,
        growth::lines(all, what, "MiB", |level| level.host_each),
    )
}

fn rates(all: &[&Crowd]) -> String {
    let text = "Instances that were started to get from one number to the next, by the time from the first spawn to the \
        last line “ready”.";
    let lines = growth::lines(all, "Starts per second", "/s", |level| {
        level.starts_per_second
    });
    picture(text, lines)
}

fn figures(all: &[&Crowd]) -> String {
    let mut rows = String::new();
    for one in all {
        for level in &one.levels {
            let each = &level.each;
            let _ = write!(
                rows,
                "<tr class=\"{}\"><td><span class=\"key\"></span>{}</td><td>{}</td><td>{}</td>",
                class(one.kind),
                escape(one.name),
                level.instances,
                short(level.starts_per_second)
            );
            for mib in [
                each.guest_ram,
                each.guest_own,
                each.private,
                each.page_cache,
                each.sum(),
                level.host_each,
            ] {
                let _ = write!(rows, "<td>{mib:.2}</td>");
            }
            rows += "</tr>";
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<p class=\"quiet\">MiB for each instance.</p><div class=\"scroll\"><table><tr><th></th><th>instances</th>\
         <th>starts/s</th><th>guest RAM</th><th>its own</th><th>private</th><th>page cache</th><th>sum</th><th>from host</th></tr>{rows}\
         </table></div>"
    )
}

fn missing(all: &[&Crowd]) -> String {
    let mut told = Vec::new();
    for one in all {
        told.extend(presence(one.name, &one.presence));
        if !one.stopped.is_empty() {
            let (name, why) = (escape(one.name), escape(&one.stopped));
            told.push(format!("<b>{name}</b> stopped at: {why}"));
        }
    }
    items(&told)
}

fn method(result: &Density, all: &[&Crowd]) -> String {
    let command = |one: &&Crowd| commands(one.name, one.about, &one.presence, &one.command);
    format!(
        "<p>{}</p>{}<details open><summary>Versions and exact commands</summary>{}</details>",
        escape(result.method),
        facts(&result.host),
        all.iter().map(command).collect::<String>()
    )
}
