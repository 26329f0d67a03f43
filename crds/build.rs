//! Compiles the protocols of the streams of settings and routes, by a compiler in Rust so that no protoc is needed. Only with feature
//! `grpc`; the result is included by `src/grpc.rs`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    #[cfg(feature = "grpc")]
    {
        let files = protox::compile(
            [
                "weir/routes/v1/routes.proto",
                "weir/settings/v1/settings.proto",
            ],
            ["proto"],
        )?;
        tonic_prost_build::configure()
            .codec_path("crate::grpc::SmallBuffers")
            .compile_fds(files)?;
    }
    Ok(())
}
