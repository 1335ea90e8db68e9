//! Requests and answers as lines of text, with tabs between the words. Only this file knows the
//! encoding.

use std::path::PathBuf;

/// A value that is encoded as some words of a line.
pub(crate) trait Words: Sized {
    fn write(&self, words: &mut Vec<String>);
    fn read(words: &mut std::str::Split<'_, char>) -> Self;

    fn to_line(&self) -> String {
        let mut words = Vec::new();
        self.write(&mut words);
        words.join("\t")
    }

    fn from_line(line: &str) -> Self {
        Self::read(&mut line.split('\t'))
    }
}

/// Declares an enum whose values can be sent: the name of the variant, then its fields.
macro_rules! sendable {
    ($(#[$of:meta])* enum $name:ident {
        $($(#[$meta:meta])* $variant:ident $(($($field:ident: $type:ty),+))?,)+
    }) => {
        $(#[$of])*
        #[derive(Debug, Clone)]
        pub(crate) enum $name { $($(#[$meta])* $variant $(($($type),+))?,)+ }

        impl $crate::peer::line::Words for $name {
            fn write(&self, words: &mut Vec<String>) {
                match self {
                    $($(#[$meta])* Self::$variant $(($($field),+))? => {
                        words.push(stringify!($variant).into());
                        $($($crate::peer::line::Words::write($field, words);)+)?
                    })+
                }
            }

            fn read(words: &mut std::str::Split<'_, char>) -> Self {
                match words.next() {
                    $($(#[$meta])* Some(stringify!($variant)) => Self::$variant $(($(
                        <$type as $crate::peer::line::Words>::read(words)
                    ),+))?,)+
                    other => panic!("{} has no {other:?}", stringify!($name)),
                }
            }
        }
    };
}

macro_rules! one_word {
    ($($type:ty),+) => {$(
        impl Words for $type {
            fn write(&self, words: &mut Vec<String>) {
                words.push(self.to_string());
            }

            fn read(words: &mut std::str::Split<'_, char>) -> Self {
                words.next().expect("a word").parse().unwrap()
            }
        }
    )+};
}

one_word!(bool, i32, u32, u64, usize, String);

impl Words for PathBuf {
    fn write(&self, words: &mut Vec<String>) {
        words.push(self.to_str().expect("a path in Unicode").into());
    }

    fn read(words: &mut std::str::Split<'_, char>) -> Self {
        words.next().expect("a path").into()
    }
}

impl<T: Words> Words for Vec<T> {
    fn write(&self, words: &mut Vec<String>) {
        self.len().write(words);
        for item in self {
            item.write(words);
        }
    }

    fn read(words: &mut std::str::Split<'_, char>) -> Self {
        (0..usize::read(words)).map(|_| T::read(words)).collect()
    }
}

impl<T: Words, E: Words> Words for Result<T, E> {
    fn write(&self, words: &mut Vec<String>) {
        self.is_ok().write(words);
        match self {
            Ok(value) => value.write(words),
            Err(error) => error.write(words),
        }
    }

    fn read(words: &mut std::str::Split<'_, char>) -> Self {
        if bool::read(words) { Ok(T::read(words)) } else { Err(E::read(words)) }
    }
}
