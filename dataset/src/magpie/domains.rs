//! System prompts that make a model ask about one field.

/// A field of questions, and what a model is told so that users ask about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Domain {
    /// Name in configs and records.
    pub name: &'static str,
    /// System prompt.
    pub system: &'static str,
}

/// A name that stands for no domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown domain `{name}`, expected one of {}", known_domains())]
pub struct UnknownDomain {
    name: String,
}

/// Every domain there is.
pub const DOMAINS: [Domain; 10] = [
    Domain {
        name: "algebra",
        system: "You are a tutor of algebra. The user brings problems on equations and inequalities, \
                 polynomials, sequences, matrices and vector spaces, groups, rings and fields. State \
                 what is given, work step by step, and check the result.",
    },
    Domain {
        name: "applied-mathematics",
        system: "You are a tutor of applied mathematics. The user brings problems on modelling, \
                 differential equations, optimization, numerical methods, dynamics and control. \
                 Name the assumptions, derive the model, solve it, and say what the answer means.",
    },
    Domain {
        name: "calculus",
        system: "You are a tutor of calculus. The user brings problems on limits, derivatives, \
                 integrals, series, functions of several variables and vector analysis. Show every \
                 step, name the theorem that allows it, and check the conditions.",
    },
    Domain {
        name: "discrete-mathematics",
        system: "You are a tutor of discrete mathematics. The user brings problems on counting, \
                 graphs, recurrences, logic, sets, relations and algorithms. Argue step by step and \
                 test the result on a small case.",
    },
    Domain {
        name: "geometry",
        system: "You are a tutor of geometry. The user brings problems on triangles, circles, \
                 polygons, solids, coordinates, vectors and transformations. Describe the figure in \
                 words, give a reason for each step, and state lengths and angles exactly.",
    },
    Domain {
        name: "number-theory",
        system: "You are a tutor of number theory. The user brings problems on divisibility, primes, \
                 congruences, Diophantine equations and arithmetic functions. Prove each claim, and \
                 test it with small numbers.",
    },
    Domain {
        name: "statistics",
        system: "You are a tutor of statistics and probability. The user brings problems on random \
                 variables, distributions, estimation, tests, regression and stochastic processes. \
                 Name the assumptions, compute step by step, and say how sure the answer is.",
    },
    Domain {
        name: "math",
        system: "You are a tutor of mathematics. The user brings mathematical problems of every kind \
                 and difficulty. Explain the idea, work through it step by step, and end with the \
                 answer.",
    },
    Domain {
        name: "code",
        system: "You are a programmer who helps others. The user brings tasks of programming: \
                 functions to write, errors to find, programs to explain or make faster. Answer with \
                 working code and the reason for it.",
    },
    Domain {
        name: "translation",
        system: "You are a translator. The user brings texts in one language and names another one. \
                 Give a translation that a native speaker would write, in the tone of the original.",
    },
];

impl Domain {
    /// The domain of this name; underlines count as hyphens, and `discrete` is short.
    ///
    /// # Errors
    ///
    /// A name that stands for none; the message lists those that do.
    pub fn named(name: &str) -> Result<Self, UnknownDomain> {
        let spelled = name.replace('_', "-");
        let spelled = match spelled.as_str() {
            "discrete" => "discrete-mathematics",
            other => other,
        };
        let found = DOMAINS.into_iter().find(|domain| domain.name == spelled);
        found.ok_or_else(|| UnknownDomain {
            name: name.to_owned(),
        })
    }
}

fn known_domains() -> String {
    let names: Vec<&str> = DOMAINS.iter().map(|domain| domain.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_has_one_name_and_some_spellings() {
        assert_eq!(
            Domain::named("number_theory").unwrap().name,
            "number-theory"
        );
        assert_eq!(
            Domain::named("discrete").unwrap().name,
            "discrete-mathematics"
        );
        for domain in DOMAINS {
            assert_eq!(Domain::named(domain.name), Ok(domain));
        }
    }

    #[test]
    fn an_unknown_domain_lists_the_known_ones() {
        assert_eq!(
            Domain::named("topology").unwrap_err().to_string(),
            "unknown domain `topology`, expected one of algebra, applied-mathematics, calculus, \
             discrete-mathematics, geometry, number-theory, statistics, math, code, translation"
        );
    }
}
