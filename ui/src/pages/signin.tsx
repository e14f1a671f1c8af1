import { useEffect, useRef, useState } from 'react'
import { type Failure, signIn } from '../api/client'
import { Trouble } from '../parts/state'
import { text } from '../text'

const t = text.signIn

// SignIn asks for a token, above whatever there is: what somebody was about to do is still there afterwards.
export function SignIn({ again }: { again: boolean }) {
  const own = useRef<HTMLDialogElement>(null)
  const [token, setToken] = useState('')
  const [failure, setFailure] = useState<Failure>()
  const [busy, setBusy] = useState(false)
  useEffect(() => own.current?.showModal(), [])
  const submit = (e: React.FormEvent) => {
    e.preventDefault()
    if (busy) return
    setBusy(true)
    setFailure(undefined)
    signIn(token.trim()).then(
      () => setToken(''),
      (f: Failure) => {
        setFailure(f)
        setBusy(false)
      },
    )
  }
  return (
    <dialog ref={own} className="dialog signin" aria-label={t.title} onCancel={(e) => e.preventDefault()} onClose={() => own.current?.showModal()} onKeyDown={(e) => e.key === 'Escape' && e.preventDefault()}>
      <form onSubmit={submit}>
        <h1>
          <img src="/icon.svg" alt="" width="28" height="28" /> {t.title}
        </h1>
        {again && <p>{t.again}</p>}
        <label>
          {t.token}
          <input type="password" value={token} onChange={(e) => setToken(e.target.value)} autoFocus autoComplete="off" spellCheck={false} required />
        </label>
        <Trouble failure={failure} />
        <button type="submit" className="main" disabled={busy}>
          {t.button}
        </button>
        <p className="faint">{t.where}</p>
        <ul className="faint">
          {t.places.map((p) => (
            <li key={p}>{p}</li>
          ))}
        </ul>
      </form>
    </dialog>
  )
}
