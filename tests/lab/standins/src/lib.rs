//! The lab's stand-ins for what surrounds the product on a real cluster: the built-in controllers, the CloudNativePG
//! operator and its instance manager, mariadb-operator and its data plane. Each runs as its own process and knows only the API server and, for the
//! manager, its container.

pub mod cnpg;
pub mod controllers;
pub mod manager;
pub mod mariadb;
pub mod operator;
pub mod process;
pub mod tls;
