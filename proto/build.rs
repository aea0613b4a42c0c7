//! Compiles the protocol with protox, so that no protoc is needed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "hasteward/agent.proto",
        "hasteward/enrol.proto",
        "hasteward/people.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    if std::env::var_os("CARGO_FEATURE_WIRE").is_none() {
        return Ok(());
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        // Holds a password; `src/wire.rs` prints the rest of it.
        .skip_debug([".hasteward.agent.v1.InspectGaleraRequest"])
        .compile_fds(descriptors)?;
    Ok(())
}
