//! The terms that an objective is made of: a struct with a number for each, whose fields are the names that are logged.

use std::fmt::Debug;

/// Numbers with names: counts, shares and means of an objective's terms, or its figures on the hold-out.
///
/// `named_terms!` makes them.
pub trait Terms: Debug + Clone + Copy + Default + PartialEq + Send + Sync + 'static {
    /// The fields, in their order.
    const NAMES: &'static [&'static str];

    /// The numbers in the order of [`Self::NAMES`]: what ranks add up.
    fn values(&self) -> Vec<f64>;

    /// Of numbers in that order; what is missing is 0.
    fn of(values: &[f64]) -> Self;

    /// Each of `self` and its fellow in `other`.
    #[must_use]
    fn zip(self, other: Self, with: impl Fn(f64, f64) -> f64) -> Self;

    /// Sums.
    #[must_use]
    fn plus(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    /// Means of sums over counts.
    #[must_use]
    fn over(self, counts: Self) -> Self {
        self.zip(counts, |sum, count| sum / count)
    }

    /// Counts to divide by: a mean over nothing is nothing.
    #[must_use]
    fn or_one(self) -> Self {
        self.zip(self, |count, _| if count > 0.0 { count } else { 1.0 })
    }

    /// Names and numbers.
    fn named(&self) -> Vec<(&'static str, f64)> {
        Self::NAMES.iter().copied().zip(self.values()).collect()
    }
}

/// Makes a struct of numbers with [`Terms`]: `named_terms! { /// What. pub struct Name { /// What. loss, /// What. kl, } }`.
macro_rules! named_terms {
    ($(#[$about:meta])* $visible:vis struct $name:ident { $($(#[$doc:meta])* $term:ident,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq)]
        $visible struct $name {
            $($(#[$doc])* pub $term: f64,)+
        }

        impl $crate::trainer::Terms for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($term)),+];

            fn values(&self) -> Vec<f64> {
                vec![$(self.$term),+]
            }

            fn of(values: &[f64]) -> Self {
                let mut values = values.iter().copied();
                Self { $($term: values.next().unwrap_or_default()),+ }
            }

            fn zip(self, other: Self, with: impl Fn(f64, f64) -> f64) -> Self {
                Self { $($term: with(self.$term, other.$term)),+ }
            }
        }
    };
}

pub(crate) use named_terms;

#[cfg(test)]
mod tests {
    use super::Terms as _;

    named_terms! {
        /// Three of them.
        struct Three {
            /// The first.
            loss,
            /// The second.
            kl,
            /// The third.
            parse,
        }
    }

    #[test]
    fn numbers_keep_their_names_on_the_way_through_a_row() {
        let three = Three { parse: 3.0, loss: 1.0, kl: -0.5 };
        assert_eq!(three.named(), [("loss", 1.0), ("kl", -0.5), ("parse", 3.0)]);
        assert_eq!(Three::of(&three.values()), three);
        let counts = Three { loss: 4.0, kl: 0.0, parse: 2.0 }.or_one();
        assert_eq!(three.plus(three).over(counts), Three { loss: 0.5, kl: -1.0, parse: 3.0 });
        assert_eq!(Three::of(&[7.0]), Three { loss: 7.0, ..Three::default() });
    }
}
