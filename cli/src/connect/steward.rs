//! [`Steward`]: the coordinator's service for people, with errors as [`Failure`]s.

use std::time::Duration;

use hasteward_proto::channel::reverse::ReverseConnection;
use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::wire::people::steward_client::StewardClient;
use hasteward_proto::wire::people::{
    GetVersionReply, GetVersionRequest, ListAgentsReply, ListAgentsRequest, ListClustersReply,
    ListClustersRequest, TriageReply, TriageRequest,
};
use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

/// Largest answer that is accepted, bytes.
const MAX_ANSWER: usize = 64 << 20;
/// What a call may take beyond the limit that the coordinator was given, so that its own answer arrives.
const GRACE: Duration = Duration::from_secs(2);

/// A connected client.
pub(crate) struct Steward {
    client: StewardClient<Channel>,
    /// Keeps the connection open for as long as the client lives.
    _connection: ReverseConnection,
    token: Option<MetadataValue<Ascii>>,
    limit: Duration,
}

macro_rules! call {
    ($name:ident, $request:ty, $reply:ty) => {
        /// One call.
        pub(crate) async fn $name(&mut self, message: $request) -> Result<$reply, Failure> {
            let request = self.request(message);
            self.client
                .$name(request)
                .await
                .map(tonic::Response::into_inner)
                .map_err(Failure::from)
        }
    };
}

impl Steward {
    pub(super) fn new(
        connection: ReverseConnection,
        token: Option<SecretString>,
        limit: Duration,
    ) -> Result<Self, Failure> {
        let header = |token: SecretString| -> Result<_, Failure> {
            let mut value: MetadataValue<Ascii> =
                format!("Bearer {}", token.expose_secret()).parse().map_err(|_| {
                    Failure::new(
                        "bad-token",
                        FailureKind::Internal,
                        "the API server gave a token that fits no header",
                    )
                })?;
            value.set_sensitive(true);
            Ok(value)
        };
        let client = StewardClient::new(connection.channel()).max_decoding_message_size(MAX_ANSWER);
        Ok(Self {
            client,
            _connection: connection,
            token: token.map(header).transpose()?,
            limit,
        })
    }

    call!(triage, TriageRequest, TriageReply);
    call!(list_clusters, ListClustersRequest, ListClustersReply);
    call!(list_agents, ListAgentsRequest, ListAgentsReply);
    call!(get_version, GetVersionRequest, GetVersionReply);

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.limit + GRACE);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }
}
