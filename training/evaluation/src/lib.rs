//! Judging: estimators and what they are worth ([`eval`]), the model's own endpoint ([`serve`]), what is written into answers of
//! both ([`measured`]), what models and data cost ([`bench`]), and the plots of all of them ([`curves`]).

pub mod bench;
pub mod curves;
pub mod eval;
pub mod measured;
pub mod serve;
