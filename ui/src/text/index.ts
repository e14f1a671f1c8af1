import { en, type Text } from './en'

// The language of the pages.
export const text: Text = en
