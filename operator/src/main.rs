//! The operator's process: settings, log, client, run until a signal. Everything else is
//! `weir_operator::app`'s.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use tokio::runtime::Builder;
use tracing_subscriber::EnvFilter;
use weir_operator::app::{self, Bound, Signals, universal};
use weir_operator::config::{self, Task};
use weir_process::api_server;

fn main() -> ExitCode {
    let result = match config::read() {
        Err(code) => return code,
        // What is printed is the token, and nothing else.
        Ok(Task::Token(request)) => {
            let made = universal::make_token(&request).map(|token| println!("{token}"));
            made.inspect_err(|error| eprintln!("weir-operator: {error:#}"))
        }
        Ok(Task::Cluster(filter, config)) => {
            log(filter);
            run_to_end(run(*config))
        }
        Ok(Task::Documents(filter, config)) => {
            log(filter);
            run_to_end(run_on_documents(*config))
        }
    };
    result.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

fn log(filter: EnvFilter) {
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stdout().is_terminal())
        .init();
}

fn run_to_end(program: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(Into::into);
    let ended = ended.and_then(|runtime| weir_process::run_to_end(runtime, program));
    ended.inspect_err(|error| tracing::error!("{error:#}"))
}

async fn run(config: app::Config) -> anyhow::Result<()> {
    let signals = Signals::heard()?;
    let found = kube::Config::infer()
        .await
        .context("cannot find the API server; run in a pod, or set KUBECONFIG")?;
    let client = api_server::client(found)?;
    let bound = Bound::new(client, config).await?;
    signals
        .run((bound.http, bound.grpc), |stop| bound.run(stop))
        .await;
    Ok(())
}

async fn run_on_documents(config: universal::Config) -> anyhow::Result<()> {
    let signals = Signals::heard()?;
    let bound = universal::Bound::new(config).await?;
    signals
        .run((bound.http, bound.grpc), |stop| bound.run(stop))
        .await;
    Ok(())
}
