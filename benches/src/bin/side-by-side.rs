//! Stands underpass beside its limit and its peers, in one run: A B A B …, medians, ratios.
//!
//! Writes `side-by-side.md` and `side-by-side.json` and prints the first. Peers are taken from the PATH;
//! what isn't there is named.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::time::sleep;
use underpass_benches::load::{Kind, Outcome};
use underpass_benches::peers::{NAMES, Setup, Workshop};
use underpass_benches::process::{Running, cpu_seconds, on_path, resident_mb};
use underpass_benches::report::{Report, Values, into_page, machine, version};

/// How often resident memory is looked at while streams run.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Bytes in the GB of "CPU seconds per GB".
const GB: f64 = 1e9;

/// Underpass beside its limit and its peers.
#[derive(Debug, Parser)]
struct Args {
    /// The program under test; without it, `underpass` from the PATH.
    #[arg(long)]
    underpass: Option<PathBuf>,
    /// Rounds; the median of them is shown. Fewer than five tell little.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each single measure.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Measure only rows whose name holds one of these.
    #[arg(long)]
    only: Vec<String>,
    /// Where the results go.
    #[arg(long)]
    out: Option<PathBuf>,
    /// A page whose section of the last run is replaced, too.
    #[arg(long)]
    page: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("side-by-side: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> io::Result<()> {
    let programs = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
    let out = args.out.clone().unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join("bench")
    });
    std::fs::create_dir_all(&out)?;
    let scratch = tempfile::tempdir()?;
    let load = programs.join("load");
    let log = scratch.path().join("load.log");
    let mut target = Running::start(&load, ["target"], &log)?;
    let ready = target.event("ready").await?;
    let address = ready["address"].as_str().unwrap_or_default().parse().map_err(io::Error::other)?;
    let underpass = args.underpass.clone().or_else(|| on_path("underpass"));
    let workshop =
        Workshop { programs, underpass: underpass.clone(), folder: scratch.path().into(), target: address };

    let (setups, missing) = start_all(&workshop, &args.only).await;
    let mut values = Values::new();
    for round in 1..=args.rounds {
        for setup in &setups {
            eprintln!("round {round} of {}: {}", args.rounds, setup.name);
            let columns = values.entry(setup.name).or_default();
            match measure(setup, &load, &log, args.seconds).await {
                Ok(measured) => {
                    for (column, value) in measured {
                        columns.entry(column).or_default().push(value);
                    }
                }
                Err(failure) => eprintln!("  {}: {failure}", setup.name),
            }
        }
    }

    let report = Report {
        values,
        rows: setups.iter().map(|setup| setup.name).collect(),
        missing,
        facts: facts(underpass.as_deref()),
        rounds: args.rounds,
    };
    let text = report.to_markdown();
    std::fs::write(out.join("side-by-side.md"), &text)?;
    std::fs::write(out.join("side-by-side.json"), serde_json::to_vec_pretty(&report.to_json())?)?;
    if let Some(page) = &args.page {
        let old = std::fs::read_to_string(page)?;
        let new = into_page(&old, &text)
            .ok_or_else(|| io::Error::other(format!("{} has no place for the last run", page.display())))?;
        std::fs::write(page, new)?;
    }
    println!("{text}");
    eprintln!("written to {}", out.display());
    Ok(())
}

async fn start_all(workshop: &Workshop, only: &[String]) -> (Vec<Setup>, Vec<(String, String)>) {
    let (mut setups, mut missing) = (Vec::new(), Vec::new());
    let wanted = |name: &&str| only.is_empty() || only.iter().any(|part| name.contains(part.as_str()));
    for name in NAMES.into_iter().filter(wanted) {
        match workshop.start(name).await {
            Ok(Some(setup)) => setups.push(setup),
            Ok(None) => missing.push((name.to_owned(), "not on the PATH".to_owned())),
            Err(failure) => missing.push((name.to_owned(), failure.to_string())),
        }
    }
    for (name, why) in &missing {
        eprintln!("not measured: {name} ({why})");
    }
    (setups, missing)
}

async fn measure(
    setup: &Setup,
    load: &std::path::Path,
    log: &std::path::Path,
    seconds: f64,
) -> io::Result<BTreeMap<&'static str, f64>> {
    let call = async |kind: Kind, callers: usize| -> io::Result<Outcome> {
        let args = [
            "run".to_owned(),
            format!("{kind:?}").to_lowercase(),
            setup.address.to_string(),
            format!("--callers={callers}"),
            format!("--seconds={seconds}"),
        ];
        let said = Running::start(load, args, log)?.finish().await?;
        let value = serde_json::from_str(&said)?;
        let outcome = Outcome::from_json(&value)
            .ok_or_else(|| io::Error::other(format!("load said something else: {value}")))?;
        if outcome.failed > 0 {
            eprintln!("  {}: {} of {} failed", setup.name, outcome.failed, outcome.count + outcome.failed);
        }
        Ok(outcome)
    };
    let cpu = || setup.running.iter().map(|running| cpu_seconds(running.pid())).sum::<f64>();
    let resident = || setup.running.iter().map(|running| resident_mb(running.pid())).sum::<f64>();

    let mut measured = BTreeMap::new();
    let cpu_before = cpu();
    let one = call(Kind::Streams, 1).await?;
    let cpu_used = cpu() - cpu_before;
    measured.insert("stream_1_gbit", one.per_second() * 8.0 / 1e9);
    if !setup.running.is_empty() {
        // Warming up moves bytes as well, at about the same rate.
        let warm_up = underpass_benches::load::WARM_UP.as_secs_f64();
        let moved = one.per_second() * (one.seconds + warm_up);
        measured.insert("cpu_s_per_gb", cpu_used / (moved / GB));
    }

    let mut highest = 0.0_f64;
    let eight = {
        let mut call = std::pin::pin!(call(Kind::Streams, 8));
        loop {
            tokio::select! {
                outcome = &mut call => break outcome?,
                () = sleep(LOOK_EVERY) => highest = highest.max(resident()),
            }
        }
    };
    measured.insert("stream_8_gbit", eight.per_second() * 8.0 / 1e9);
    if !setup.running.is_empty() {
        measured.insert("resident_mb", highest);
    }

    let connections = call(Kind::Connections, 32).await?;
    measured.insert("connections_per_s", connections.per_second());
    measured.insert("connections_p99_ms", f64::from(connections.p99_us) / 1e3);
    let requests = call(Kind::Requests, 64).await?;
    measured.insert("requests_per_s", requests.per_second());
    measured.insert("requests_p50_ms", f64::from(requests.p50_us) / 1e3);
    measured.insert("requests_p99_ms", f64::from(requests.p99_us) / 1e3);
    Ok(measured)
}

fn facts(underpass: Option<&std::path::Path>) -> Vec<(String, String)> {
    let mut facts = machine();
    let peers = [("rathole", "--version"), ("bore", "--version"), ("haproxy", "-v")];
    let versions: Vec<_> = underpass
        .and_then(|program| version(program, "--version"))
        .into_iter()
        .chain(peers.iter().filter_map(|(name, flag)| version(&on_path(name)?, flag)))
        .collect();
    facts.push(("versions".into(), versions.join("; ")));
    // Without the folders of whoever ran it.
    let name = |argument: String| argument.rsplit('/').next().unwrap_or_default().to_owned();
    let command: Vec<_> = std::env::args().map(name).collect();
    facts.push(("command".into(), format!("`{}`", command.join(" "))));
    facts
}
