//! What is in ConfigMap, Secret, downward API and projected volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, Volume,
};
use kube::{Api, Client, ResourceExt as _};

use super::atomic::{Entry, Payload};
use super::token::Tokens;
use super::{VolumeError, VolumeKind};
use crate::pod::env::{PodFacts, field};

/// Makes payloads for the volumes of one pod.
pub struct Builder<'a> {
    /// The API server.
    pub client: &'a Client,
    /// The pod.
    pub pod: &'a Pod,
    /// Its addresses.
    pub facts: &'a PodFacts,
    /// Its tokens.
    pub tokens: &'a Tokens,
}

type Values = BTreeMap<String, Vec<u8>>;

const DEFAULT_MODE: i32 = 0o644;

fn mode(mode: i32) -> u32 {
    mode.cast_unsigned() & 0o777
}

impl Builder<'_> {
    /// The files of a volume; `None` when it is not a volume made of files.
    ///
    /// # Errors
    /// When something that is not optional is missing.
    pub async fn build(&self, volume: &Volume) -> Result<Option<Payload>, VolumeError> {
        let mut payload = Payload::new();
        if let Some(source) = &volume.config_map {
            let values = self.config_map(&source.name, source.optional).await?;
            select(
                &mut payload,
                values,
                source.items.as_deref(),
                source.default_mode,
                source.optional,
            )?;
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let values = self.secret(name, source.optional).await?;
            select(
                &mut payload,
                values,
                source.items.as_deref(),
                source.default_mode,
                source.optional,
            )?;
        } else if let Some(source) = &volume.downward_api {
            self.downward(&mut payload, source.items.as_deref(), source.default_mode)?;
        } else if let Some(source) = &volume.projected {
            self.projected(&mut payload, source).await?;
        } else {
            return Ok(None);
        }
        Ok(Some(payload))
    }

    async fn projected(
        &self,
        payload: &mut Payload,
        source: &ProjectedVolumeSource,
    ) -> Result<(), VolumeError> {
        for part in source.sources.iter().flatten() {
            if let Some(part) = &part.config_map {
                let values = self.config_map(&part.name, part.optional).await?;
                select(
                    payload,
                    values,
                    part.items.as_deref(),
                    source.default_mode,
                    part.optional,
                )?;
            }
            if let Some(part) = &part.secret {
                let values = self.secret(&part.name, part.optional).await?;
                select(
                    payload,
                    values,
                    part.items.as_deref(),
                    source.default_mode,
                    part.optional,
                )?;
            }
            if let Some(part) = &part.downward_api {
                self.downward(payload, part.items.as_deref(), source.default_mode)?;
            }
            if let Some(part) = &part.service_account_token {
                let token = self
                    .tokens
                    .get(self.client, self.pod, part)
                    .await
                    .map_err(VolumeError::Token)?;
                payload.insert(
                    part.path.clone().into(),
                    self.token_entry(token, source.default_mode),
                );
            }
        }
        Ok(())
    }

    /// A token is private to the one user of all containers, or to the group of the volumes.
    fn token_entry(&self, token: String, default_mode: Option<i32>) -> Entry {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let pod = spec.security_context.unwrap_or_default();
        let users: Vec<Option<i64>> = spec
            .containers
            .iter()
            .map(|c| {
                c.security_context
                    .as_ref()
                    .and_then(|own| own.run_as_user)
                    .or(pod.run_as_user)
            })
            .collect();
        let same = users
            .first()
            .copied()
            .flatten()
            .filter(|first| users.iter().all(|user| *user == Some(*first)));
        let private = same.is_some() || pod.fs_group.is_some();
        Entry {
            content: token.into_bytes(),
            mode: if private {
                0o600
            } else {
                mode(default_mode.unwrap_or(DEFAULT_MODE))
            },
            owner: same.and_then(|user| u32::try_from(user).ok()),
        }
    }

    async fn config_map(&self, name: &str, optional: Option<bool>) -> Result<Values, VolumeError> {
        let api: Api<ConfigMap> =
            Api::namespaced(self.client.clone(), &self.pod.namespace().unwrap_or_default());
        let Some(found) = found(api.get_opt(name).await, VolumeKind::ConfigMap, name, optional)? else {
            return Ok(Values::new());
        };
        let texts = found
            .data
            .into_iter()
            .flatten()
            .map(|(key, value)| (key, value.into_bytes()));
        Ok(texts
            .chain(
                found
                    .binary_data
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| (key, value.0)),
            )
            .collect())
    }

    async fn secret(&self, name: &str, optional: Option<bool>) -> Result<Values, VolumeError> {
        let api: Api<Secret> =
            Api::namespaced(self.client.clone(), &self.pod.namespace().unwrap_or_default());
        let found = found(api.get_opt(name).await, VolumeKind::Secret, name, optional)?;
        Ok(found
            .and_then(|found| found.data)
            .into_iter()
            .flatten()
            .map(|(key, value)| (key, value.0))
            .collect())
    }

    fn downward(
        &self,
        payload: &mut Payload,
        items: Option<&[DownwardAPIVolumeFile]>,
        default_mode: Option<i32>,
    ) -> Result<(), VolumeError> {
        for item in items.into_iter().flatten() {
            let path = item
                .field_ref
                .as_ref()
                .map_or("resourceFieldRef", |wanted| wanted.field_path.as_str());
            let content = field(self.pod, self.facts, path)
                .map_err(VolumeError::Downward)?
                .into_bytes();
            let mode = mode(item.mode.or(default_mode).unwrap_or(DEFAULT_MODE));
            payload.insert(
                item.path.clone().into(),
                Entry {
                    content,
                    mode,
                    owner: None,
                },
            );
        }
        Ok(())
    }
}

fn found<T>(
    answer: Result<Option<T>, kube::Error>,
    kind: VolumeKind,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<T>, VolumeError> {
    match answer.map_err(|source| VolumeError::Read {
        kind,
        name: name.to_owned(),
        source,
    })? {
        None if optional != Some(true) => Err(VolumeError::NotFound {
            kind,
            name: name.to_owned(),
        }),
        other => Ok(other),
    }
}

/// All values under their keys, or the `items` under their paths.
fn select(
    payload: &mut Payload,
    mut values: Values,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: Option<bool>,
) -> Result<(), VolumeError> {
    let default = mode(default_mode.unwrap_or(DEFAULT_MODE));
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let entries = values.into_iter();
        payload.extend(entries.map(|(key, content)| {
            (
                key.into(),
                Entry {
                    content,
                    mode: default,
                    owner: None,
                },
            )
        }));
        return Ok(());
    };
    for item in items {
        match values.remove(&item.key) {
            Some(content) => {
                let mode = item.mode.map_or(default, mode);
                payload.insert(
                    item.path.clone().into(),
                    Entry {
                        content,
                        mode,
                        owner: None,
                    },
                );
            }
            None if optional == Some(true) => {}
            None => return Err(VolumeError::MissingKey(item.key.clone())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        BTreeMap::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())])
    }

    #[test]
    fn all_or_the_items() {
        let mut payload = Payload::new();
        select(&mut payload, values(), None, Some(0o400), None).unwrap();
        assert_eq!(
            (payload.len(), payload[std::path::Path::new("a")].mode),
            (2, 0o400)
        );
        let item = |key: &str| KeyToPath {
            key: key.to_owned(),
            mode: Some(0o440),
            path: "x/y".to_owned(),
        };
        let mut payload = Payload::new();
        select(&mut payload, values(), Some(&[item("b")]), None, None).unwrap();
        assert_eq!(
            payload[std::path::Path::new("x/y")],
            Entry {
                content: b"2".to_vec(),
                mode: 0o440,
                owner: None
            }
        );
        assert!(select(&mut payload, values(), Some(&[item("c")]), None, None).is_err());
        assert!(select(&mut payload, values(), Some(&[item("c")]), None, Some(true)).is_ok());
    }
}
