import { useEffect, useId, useRef, useState } from 'react'
import { text } from '../text'

// Copy is a text to be taken elsewhere.
export function Copy({ label, text: what, focus }: { label: string; text: string; focus?: boolean }) {
  const shown = useRef<HTMLPreElement>(null)
  const button = useRef<HTMLButtonElement>(null)
  const id = useId()
  const [said, say] = useState('')
  useEffect(() => {
    if (focus) button.current?.focus()
  }, [focus])
  const copy = () => {
    // Browsers give no clipboard to pages without TLS of another machine.
    const written = navigator.clipboard ? navigator.clipboard.writeText(what) : Promise.reject(new Error('there is no clipboard'))
    written.then(
      () => say(text.copy.done),
      () => {
        if (shown.current) getSelection()?.selectAllChildren(shown.current)
        say(text.copy.select)
      },
    )
  }
  return (
    <div className="copy">
      <h3 id={id}>{label}</h3>
      <pre ref={shown} role="region" aria-labelledby={id} tabIndex={0}>
        {what}
      </pre>
      <div className="acts">
        <button type="button" ref={button} onClick={copy}>
          {text.copy.button}
        </button>
        <span role="status" className="faint">
          {said}
        </span>
      </div>
    </div>
  )
}
