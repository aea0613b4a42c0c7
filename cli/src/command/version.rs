//! `hasteward version`

use hasteward_proto::failure::Failure;
use hasteward_proto::wire::people::GetVersionRequest;

use crate::args::Global;
use crate::connect;
use crate::output::{Data, Outcome, Version, Warning};

pub(super) async fn run(global: &Global, client_only: bool) -> Result<Outcome, Failure> {
    let client = env!("CARGO_PKG_VERSION").to_owned();
    if client_only {
        return Ok(Outcome::done(Data::Version(Version {
            client,
            coordinator: None,
        })));
    }
    let asked = async {
        connect::steward(global)
            .await?
            .get_version(GetVersionRequest {})
            .await
    };
    match asked.await {
        Ok(reply) => Ok(Outcome::done(Data::Version(Version {
            client,
            coordinator: Some(reply.version),
        }))),
        // Our own version is still the answer.
        Err(failure) => {
            let warning = Warning {
                code: failure.code.clone(),
                message: format!("the coordinator was not asked: {failure}"),
            };
            Ok(Outcome {
                data: Data::Version(Version {
                    client,
                    coordinator: None,
                }),
                warnings: vec![warning],
                exit_code: 0,
            })
        }
    }
}
