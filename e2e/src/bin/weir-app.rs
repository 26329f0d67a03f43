//! The application of the stories: one static program that is a server, a client or a bot as its
//! first argument says. Run as the only program of the image `weir-app:dev`; what it does is in
//! `weir_e2e::app`.

use clap::Parser;
use weir_e2e::app::{self, Role};

#[derive(Parser)]
#[command(version, about = "The application of Weir's end-to-end stories")]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(app::run(arguments.role))
}
