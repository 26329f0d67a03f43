//! Makes the stubs of the streams between operator and proxy. Only with feature `grpc`; the results are included by
//! `src/grpc.rs`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    #[cfg(feature = "grpc")]
    grpc::compile()?;
    Ok(())
}

#[cfg(feature = "grpc")]
mod grpc {
    use tonic_build::manual::{Builder, Method, Service};

    /// How messages are read and written on every stream.
    const CODEC: &str = "crate::grpc::SmallBuffers";
    /// The package of Linkerd's service.
    const DESTINATION: &str = "io.linkerd.proxy.destination";

    pub(super) fn compile() -> Result<(), Box<dyn std::error::Error>> {
        // By a compiler in Rust, so that no protoc is needed.
        let protocols = [
            "weir/routes/v1/routes.proto",
            "weir/settings/v1/settings.proto",
        ];
        let files = protox::compile(protocols, ["proto"])?;
        let mut methods = String::new();
        for file in &files.file {
            for service in &file.service {
                let names = service.method.iter().map(|method| method.name());
                add(&mut methods, file.package(), (service.name(), names));
            }
        }
        tonic_prost_build::configure()
            .codec_path(CODEC)
            .compile_fds(files)?;
        // The published crate has a client, too, but its codec cannot be chosen.
        let destination = Service::builder()
            .name("Destination")
            .package(DESTINATION)
            .comment("`io.linkerd.proxy.destination.Destination` of linkerd2-proxy-api.")
            .method(stream("get", "Get", "Update"))
            .method(stream("get_profile", "GetProfile", "DestinationProfile"))
            .build();
        let names = ["Get", "GetProfile"].into_iter();
        add(&mut methods, DESTINATION, ("Destination", names));
        Builder::new().build_server(false).compile(&[destination]);
        let out = std::env::var("OUT_DIR")?;
        std::fs::write(format!("{out}/methods.rs"), format!("&[{methods}]"))?;
        Ok(())
    }

    /// Adds the paths by which the methods of a service are called.
    fn add<'a>(
        methods: &mut String,
        package: &str,
        (service, names): (&str, impl Iterator<Item = &'a str>),
    ) {
        for name in names {
            methods.push_str(&format!("\"/{package}.{service}/{name}\", "));
        }
    }

    /// A call of `Destination`, which is answered by a stream.
    fn stream(name: &str, route: &str, output: &str) -> Method {
        let message = |name: &str| format!("::linkerd2_proxy_api::destination::{name}");
        Method::builder()
            .name(name)
            .route_name(route)
            .comment(format!("`{route}` of the API."))
            .input_type(message("GetDestination"))
            .output_type(message(output))
            .codec_path(CODEC)
            .server_streaming()
            .build()
    }
}
