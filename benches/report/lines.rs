//! What both reports have: verdicts as lines of a table, and the machine.

use std::fmt::Write as _;
use std::process::Command;

use crate::kit::{Verdict, number};

pub const TARGETS: &str = "| | measured | target | |\n|---|---:|---|---|\n";

pub fn lines(out: &mut String, verdicts: &[Verdict]) {
    for verdict in verdicts {
        let mark = if verdict.holds() { "pass" } else { "**miss**" };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {mark} |",
            verdict.what,
            number(verdict.value),
            verdict.target()
        );
    }
}

pub fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |line| {
        line.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let total = total.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.filter(|text| !text.is_empty())
            .unwrap_or_else(|| format!("{program} unknown"))
    };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "Machine: {model}, {cores} cores, {:.0} GB of memory, Linux {}; {}; looker-feed {} at commit {}. Load average when \
         this was written: {}.",
        total.unwrap_or_default() / 1e6,
        said("uname", &["-r"]),
        said("rustc", &["--version"]),
        env!("CARGO_PKG_VERSION"),
        said("git", &["rev-parse", "--short", "HEAD"]),
        load.split(' ').take(3).collect::<Vec<_>>().join(" "),
    )
}
