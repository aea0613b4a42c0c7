//! Tables of cases; one file a theme.

mod oracle;
