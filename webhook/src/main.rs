//! The program `weir-webhook`: reads its flags, sets logging up and hands over to `app`.

use std::io::IsTerminal;

use anyhow::Context;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use weir_process::{api_server, run_to_end};
use weir_webhook::{
    app,
    config::{Cli, Command, LogFormat},
};

/// The exit code of bad flags and files.
const USAGE: i32 = 64;

fn usage(error: &anyhow::Error) -> ! {
    eprintln!("weir-webhook: {error:#}");
    std::process::exit(USAGE)
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| {
        let code = if error.use_stderr() { USAGE } else { 0 };
        // Nothing is left to do when the terminal is gone.
        let _ = error.print();
        std::process::exit(code)
    });
    let filter =
        EnvFilter::try_new(&cli.log).with_context(|| format!("--log: {:?} is no filter", cli.log));
    let filter = filter.unwrap_or_else(|error| usage(&error));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match cli.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
    match cli.command {
        Command::Inject(offline) => match app::inject_offline(&offline) {
            Ok(pod) => print!("{pod}"),
            Err(error) => usage(&error),
        },
        Command::Serve(serve) => run_to_end(Runtime::new()?, async {
            let mut term = signal(SignalKind::terminate())?;
            let mut int = signal(SignalKind::interrupt())?;
            let found = kube::Config::infer()
                .await
                .context("cannot find the API server")?;
            let client = api_server::client(found)?;
            let bound = app::bind(*serve, client).await?;
            let ending = async {
                tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            };
            bound.run(ending).await;
            anyhow::Ok(())
        })?,
    }
    Ok(())
}
